//! Random weights in the form that inference keeps them in, for measuring models whose f32 weights do not fit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use super::format::Format;
use super::forms;
use super::open::refused;
use super::stored::StoredTensor;
use crate::config::MptConfig;
use crate::error::Result;
use crate::init::initial_values;
use crate::ops::Products;
use crate::source::{Parameter, ParameterSource};

/// Weights drawn by a configuration's scheme, rounded a tensor at a time: no more than one is f32 at any moment.
///
/// All blocks hold the numbers of the first, each in memory of its own: speed does not depend on them, and drawing 30
/// billion takes ten minutes.
#[derive(Debug)]
pub struct Drawn<'a> {
    config: &'a MptConfig,
    seed: u64,
    form: Format,
    first_block: RefCell<BTreeMap<String, StoredTensor>>,
}

impl<'a> Drawn<'a> {
    /// Weights of `config` whose matrices have the form `form`, as a model opened in that form would.
    pub fn new(config: &'a MptConfig, seed: u64, form: Format) -> Self {
        Self { config, seed, form, first_block: RefCell::default() }
    }

    fn draw(&self, name: &str, shape: &[usize]) -> Result<StoredTensor> {
        let values = initial_values(self.config, self.seed, name, shape)?;
        let form = forms::loaded(name, shape, Format::F32, self.form);
        let refused = |refusal| refused(Path::new("random weights"), name, form, refusal);
        StoredTensor::from_f32(&values, shape, form).map_err(refused)?.in_panels()?.in_tiles()
    }
}

impl ParameterSource for Drawn<'_> {
    fn products(&self) -> Products {
        if self.form == Format::BF16 { Products::Bf16 } else { Products::F32 }
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<Parameter> {
        let Some(place) = place_in_block(name) else { return self.draw(name, shape).map(Parameter::Stored) };
        if let Some(first) = self.first_block.borrow().get(place) {
            return first.copied().map(Parameter::Stored);
        }
        let drawn = self.draw(name, shape)?;
        self.first_block.borrow_mut().insert(place.to_owned(), drawn.clone());
        Ok(Parameter::Stored(drawn))
    }
}

/// What follows the number of the block in a parameter's name.
fn place_in_block(name: &str) -> Option<&str> {
    Some(name.strip_prefix("transformer.blocks.")?.split_once('.')?.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CausalLm;
    use crate::testing::tiny_model;
    use crate::{AttnMask, testing::assert_close};

    #[test]
    fn the_form_is_the_one_asked_for_and_blocks_are_alike() {
        let (config, _) = tiny_model(1);
        for form in [Format::F32, Format::BF16, Format::Q8_0] {
            let drawn = Drawn::new(&config, 7, form);
            let stored = |name: &str| match drawn.get(name, &config.parameter_shapes()[name]).unwrap() {
                Parameter::Stored(stored) => stored,
                Parameter::Tensor(_) => panic!("{name} is a variable"),
            };
            let [a, b] = [0, 1].map(|n| stored(&format!("transformer.blocks.{n}.attn.Wqkv.weight")));
            assert_eq!((a.format(), b.format()), (form, form));
            let values = |x: &StoredTensor| x.to_tensor(&candle_core::Device::Cpu).unwrap();
            assert_close(&values(&a), &values(&b), 0.0);
            let logits = || {
                let lm = CausalLm::new(&config, &drawn).unwrap();
                lm.logits(&lm.hidden(&[[3, 5]], &AttnMask::causal(1, 2), None).unwrap()).unwrap()
            };
            assert_close(&logits(), &logits(), 0.0);
        }
    }
}
