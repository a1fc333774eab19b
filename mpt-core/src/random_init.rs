//! Random weights in the form that inference keeps them in, for measuring models whose f32 weights do not fit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use crate::config::MptConfig;
use crate::dtype::WeightDtype;
use crate::dtype_policy;
use crate::error::Result;
use crate::init::initial_values;
use crate::loading::refused;
use crate::ops::Precision;
use crate::parameter::Parameter;
use crate::params::{ModuleId, ParamId};
use crate::source::ParameterSource;
use crate::storage::StoredTensor;

/// Weights drawn by a configuration's scheme, rounded a tensor at a time: no more than one is f32 at any moment.
///
/// All blocks hold the numbers of the first, each in memory of its own: speed does not depend on them, and drawing 30
/// billion takes ten minutes.
#[derive(Debug)]
pub struct Drawn<'a> {
    config: &'a MptConfig,
    seed: u64,
    form: WeightDtype,
    /// By the parameter of block 0.
    first_block: RefCell<BTreeMap<ParamId, StoredTensor>>,
}

impl<'a> Drawn<'a> {
    /// Weights of `config` whose matrices have the form `form`, as a model opened in that form would.
    pub fn new(config: &'a MptConfig, seed: u64, form: WeightDtype) -> Self {
        Self { config, seed, form, first_block: RefCell::default() }
    }

    fn draw(&self, id: ParamId, shape: &[usize]) -> Result<StoredTensor> {
        let (values, name) = (initial_values(self.config, self.seed, id, shape)?, id.to_string());
        let form = dtype_policy::load_dtype(&name, shape, WeightDtype::F32, self.form);
        let refused = |refusal| refused(Path::new("random weights"), &name, form, refusal);
        StoredTensor::from_f32(&values, shape, form).map_err(refused)?.prepack_int8()?.prepack_bf16()
    }
}

impl ParameterSource for Drawn<'_> {
    fn precision(&self) -> Precision {
        self.form.precision()
    }

    fn get(&self, id: ParamId, shape: &[usize]) -> Result<Parameter> {
        let ModuleId { layer: Some(_), module } = id.module else {
            return self.draw(id, shape).map(Parameter::Stored);
        };
        let first = ModuleId::of_block(0, module).param(id.kind);
        if let Some(first) = self.first_block.borrow().get(&first) {
            return first.copied().map(Parameter::Stored);
        }
        let drawn = self.draw(first, shape)?;
        self.first_block.borrow_mut().insert(first, drawn.clone());
        Ok(Parameter::Stored(drawn))
    }
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
        for form in [WeightDtype::F32, WeightDtype::BF16, WeightDtype::Q8_0] {
            let drawn = Drawn::new(&config, 7, form);
            let stored = |name: &str| match drawn
                .get(name.parse().unwrap(), &config.parameter_shapes()[name])
                .unwrap()
            {
                Parameter::Stored(stored) => stored,
                Parameter::Tensor(_) => panic!("{name} is a variable"),
            };
            let [a, b] = [0, 1].map(|n| stored(&format!("transformer.blocks.{n}.attn.Wqkv.weight")));
            assert_eq!((a.dtype(), b.dtype()), (form, form));
            let values = |x: &StoredTensor| x.to_tensor(&candle_core::Device::Cpu).unwrap();
            assert_close(&values(&a), &values(&b), 0.0);
            let logits = || {
                let lm = CausalLm::new(&config, &drawn).unwrap();
                lm.logits(&lm.hidden(&[[3, 5]], &AttnMask::causal(1, 2)).unwrap()).unwrap()
            };
            assert_close(&logits(), &logits(), 0.0);
        }
    }
}
