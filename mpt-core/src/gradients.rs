//! Where gradients go: a sink takes each as soon as it is known, block by block.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::ops;
use crate::params::ParamId;

/// Takes the gradients of a backward pass. What a sink does not want is not computed.
pub trait GradSink {
    /// Whether the gradient of `id` is wanted.
    fn wants(&self, id: ParamId) -> bool;

    /// Takes a gradient of `id`, to be added to those it has been given before.
    ///
    /// # Errors
    /// Those of what the sink does with it.
    fn add(&mut self, id: ParamId, gradient: Tensor) -> Result<()>;

    /// Takes a gradient of the table `id` `[rows, d]` that is 0 but for the rows `ids`, `d_rows` `[ids, d]`.
    ///
    /// # Errors
    /// Those of what the sink does with it.
    fn add_rows(&mut self, id: ParamId, rows: usize, ids: &[u32], d_rows: &Tensor) -> Result<()>;

    /// Says that all gradients of block `layer` have been given: they may be reduced, applied or sent away.
    ///
    /// # Errors
    /// Those of what the sink does then.
    fn block_done(&mut self, _layer: usize) -> Result<()> {
        Ok(())
    }
}

/// Gradients by parameter, summed over everything added so far.
#[derive(Debug, Default)]
pub struct Gradients {
    /// By checkpoint name.
    sums: BTreeMap<String, Tensor>,
    /// All are wanted where absent.
    wanted: Option<BTreeSet<ParamId>>,
}

impl Gradients {
    /// No gradients yet, of the parameters `wanted` alone.
    pub fn of(wanted: impl IntoIterator<Item = ParamId>) -> Self {
        Self { sums: BTreeMap::new(), wanted: Some(wanted.into_iter().collect()) }
    }

    /// The gradient of a parameter by its checkpoint name.
    ///
    /// # Errors
    /// [`Error::NoGradient`] when it has received none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.sums.get(name).ok_or_else(|| Error::NoGradient { name: name.to_owned() })
    }

    /// Names and gradients in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.sums.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The L2 norm over all gradients, summed in the order of names.
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
        let mut gradients = Gradients::of([id]);
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
