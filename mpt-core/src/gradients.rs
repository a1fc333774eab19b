//! Gradient sinks: consumers of a backward pass, called block by block.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::ops;
use crate::params::ParamId;

/// Consumer of the gradients of a backward pass. Unwanted gradients are not computed.
pub trait GradSink {
    /// Whether the gradient of `id` is to be computed.
    fn wants(&self, id: ParamId) -> bool;

    /// Accumulates a gradient of `id`, in the shape of the parameter, f32.
    ///
    /// # Errors
    /// Those of the sink.
    fn add(&mut self, id: ParamId, gradient: Tensor) -> Result<()>;

    /// Accumulates a sparse gradient of the embedding `id` `[rows, d]`: `d_rows` `[ids, d]` in the rows `ids`, f32.
    ///
    /// # Errors
    /// Those of the sink.
    fn add_rows(&mut self, id: ParamId, rows: usize, ids: &[u32], d_rows: &Tensor) -> Result<()>;

    /// Called when all gradients of block `layer` are complete: they may be reduced or applied.
    ///
    /// # Errors
    /// Those of the sink.
    fn block_done(&mut self, _layer: usize) -> Result<()> {
        Ok(())
    }
}

/// Accumulated gradients by parameter.
#[derive(Debug, Default)]
pub struct Gradients {
    /// By checkpoint name.
    sums: BTreeMap<String, Tensor>,
    /// Wanted parameters; `None` for all.
    wanted: Option<BTreeSet<ParamId>>,
}

impl Gradients {
    /// Empty gradients of the parameters `wanted` only.
    pub fn for_params(wanted: impl IntoIterator<Item = ParamId>) -> Self {
        Self { sums: BTreeMap::new(), wanted: Some(wanted.into_iter().collect()) }
    }

    /// Gradient by checkpoint name.
    ///
    /// # Errors
    /// [`Error::NoGradient`] when the parameter has received none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.sums.get(name).ok_or_else(|| Error::NoGradient { name: name.to_owned() })
    }

    /// Checkpoint names and gradients, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.sums.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Global L2 norm, summed in the order of names.
    ///
    /// # Errors
    /// When a gradient is not f32.
    pub fn norm(&self) -> Result<f64> {
        Ok(self.sums.values().map(ops::square_norm).sum::<Result<f64>>()?.sqrt())
    }
}

impl GradSink for Gradients {
    fn wants(&self, id: ParamId) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&id))
    }

    fn add(&mut self, id: ParamId, gradient: Tensor) -> Result<()> {
        match self.sums.get(&id.to_string()) {
            Some(sum) => ops::add(sum, &gradient),
            None => {
                self.sums.insert(id.to_string(), gradient.contiguous()?);
                Ok(())
            }
        }
    }

    fn add_rows(&mut self, id: ParamId, rows: usize, ids: &[u32], d_rows: &Tensor) -> Result<()> {
        let (_, d) = d_rows.dims2()?;
        let name = id.to_string();
        if !self.sums.contains_key(&name) {
            self.sums.insert(name.clone(), Tensor::zeros((rows, d), DType::F32, d_rows.device())?);
        }
        ops::embedding_backward(&self.sums[&name], ids, d_rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Module;
    use crate::testing::{assert_close, random};

    #[test]
    fn gradients_are_summed_and_counted_by_name() {
        let (id, other) = (ParamId::weight(Module::Wte), ParamId::weight(Module::NormF));
        let mut gradients = Gradients::for_params([id]);
        assert!(gradients.wants(id) && !gradients.wants(other));
        let (a, rows) = (random(&[5, 3], 1), random(&[2, 3], 2));
        let expected = a.copy().unwrap();
        ops::embedding_backward(&expected, &[4, 4], &rows).unwrap();
        gradients.add(id, a).unwrap();
        gradients.add_rows(id, 5, &[4, 4], &rows).unwrap();
        assert_close(gradients.get("transformer.wte.weight").unwrap(), &expected, 0.0);
        let square = expected.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((gradients.norm().unwrap() - f64::from(square).sqrt()).abs() < 1e-5);
        assert!(gradients.get("lm_head.weight").unwrap_err().to_string().contains("`lm_head.weight`"));
    }
}
