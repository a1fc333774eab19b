//! Randomly initialized parameters in an inference dtype, for benchmarks of models whose f32 weights do not fit into memory.

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

/// Source of randomly initialized parameters, converted to a weight dtype one tensor at a time.
///
/// All blocks are copies of the first, each in its own memory: speed does not depend on the values, and initializing 30
/// billion of them takes ten minutes.
#[derive(Debug)]
pub struct RandomInit<'a> {
    config: &'a MptConfig,
    seed: u64,
    dtype: WeightDtype,
    /// Tensors of block 0, by parameter.
    first_block: RefCell<BTreeMap<ParamId, StoredTensor>>,
}

impl<'a> RandomInit<'a> {
    /// Parameters of `config` with matrices in `dtype`, as in a model opened with that dtype.
    pub fn new(config: &'a MptConfig, seed: u64, dtype: WeightDtype) -> Self {
        Self { config, seed, dtype, first_block: RefCell::default() }
    }

    fn init_tensor(&self, id: ParamId, shape: &[usize]) -> Result<StoredTensor> {
        let (values, name) = (initial_values(self.config, self.seed, id, shape)?, id.to_string());
        let dtype = dtype_policy::load_dtype(&name, shape, WeightDtype::F32, self.dtype);
        let refused = |refusal| refused(Path::new("random weights"), &name, dtype, refusal);
        StoredTensor::from_f32(&values, shape, dtype).map_err(refused)?.prepack_int8()?.prepack_bf16()
    }
}

impl ParameterSource for RandomInit<'_> {
    fn precision(&self) -> Precision {
        self.dtype.precision()
    }

    fn get(&self, id: ParamId, shape: &[usize]) -> Result<Parameter> {
        let ModuleId { layer: Some(_), module } = id.module else {
            return self.init_tensor(id, shape).map(Parameter::Stored);
        };
        let first = ModuleId::of_block(0, module).param(id.kind);
        if let Some(first) = self.first_block.borrow().get(&first) {
            return first.copied().map(Parameter::Stored);
        }
        let tensor = self.init_tensor(first, shape)?;
        self.first_block.borrow_mut().insert(first, tensor.clone());
        Ok(Parameter::Stored(tensor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CausalLm;
    use crate::testing::tiny_model;
    use crate::{AttnMask, testing::assert_close};

    #[test]
    fn the_dtype_is_the_requested_one_and_blocks_are_equal() {
        let (config, _) = tiny_model(1);
        for dtype in [WeightDtype::F32, WeightDtype::BF16, WeightDtype::Q8_0] {
            let source = RandomInit::new(&config, 7, dtype);
            let stored = |name: &str| match source
                .get(name.parse().unwrap(), &config.parameter_shapes()[name])
                .unwrap()
            {
                Parameter::Stored(stored) => stored,
                Parameter::Tensor(_) => panic!("{name} is a variable"),
            };
            let [a, b] = [0, 1].map(|n| stored(&format!("transformer.blocks.{n}.attn.Wqkv.weight")));
            assert_eq!((a.dtype(), b.dtype()), (dtype, dtype));
            let values = |x: &StoredTensor| x.to_tensor(&candle_core::Device::Cpu).unwrap();
            assert_close(&values(&a), &values(&b), 0.0);
            let logits = || {
                let lm = CausalLm::new(&config, &source).unwrap();
                lm.logits(&lm.hidden(&[[3, 5]], &AttnMask::causal(1, 2)).unwrap()).unwrap()
            };
            assert_close(&logits(), &logits(), 0.0);
        }
    }
}
