//! Loading of parameters from weights files: conversion to the requested dtype and prepacking for the kernels.

use std::path::Path;

use crate::dtype::{Precision, WeightDtype};
use crate::dtype_policy;
use crate::error::{Error, Result};
use crate::kernels::cpu::quantize::QuantizeError;
use crate::parameter::Parameter;
use crate::params::ParamId;
use crate::source::ParameterSource;
use crate::storage::StoredTensor;
use crate::weights::Weights;

impl Weights {
    /// The same weights with matrices converted to `dtype` when loaded. f32 keeps the stored dtype: widening is exact and
    /// happens at use.
    ///
    /// A quantized dtype applies to matrices that it makes smaller, NF4 to the linears of blocks. Rows that its blocks do not
    /// fill get [`WeightDtype::fallback_for`].
    #[must_use]
    pub fn with_dtype(mut self, dtype: WeightDtype) -> Self {
        self.requested_dtype = dtype;
        self
    }

    /// The same weights with another precision of the model's matmuls; f32 by default.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Dtype of a tensor as [`tensor`](Self::tensor) returns it.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorDtype`].
    pub fn loaded_dtype(&self, name: &str) -> Result<WeightDtype> {
        let (_, entry, stored) = self.locate(name)?;
        Ok(dtype_policy::load_dtype(name, &entry.shape, stored, self.requested_dtype))
    }

    /// Tensor by checkpoint name, converted to its [`loaded_dtype`](Self::loaded_dtype). `expected` is the required shape.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`], [`Error::TensorDtype`], and [`Error::Unquantizable`] for a value
    /// that the dtype cannot hold.
    pub fn tensor(&self, name: &str, expected: Option<&[usize]>) -> Result<StoredTensor> {
        let (path, entry, stored) = self.locate(name)?;
        if let Some(expected) = expected.filter(|&expected| expected != entry.shape) {
            let (actual, expected) = (entry.shape.clone(), expected.to_vec());
            return Err(Error::TensorShape {
                path: path.to_owned(),
                name: name.to_owned(),
                actual,
                expected,
            });
        }
        let dtype = dtype_policy::load_dtype(name, &entry.shape, stored, self.requested_dtype);
        self.stored_tensor(name)?.into_dtype(dtype).map_err(|refusal| refused(path, name, dtype, refusal))
    }
}

impl ParameterSource for Weights {
    fn get(&self, id: ParamId, shape: &[usize]) -> Result<Parameter> {
        let stored = self.tensor(&id.to_string(), Some(shape))?.prepack_int8()?;
        let stored = if self.precision == Precision::Bf16 { stored.prepack_bf16()? } else { stored };
        Ok(Parameter::Stored(stored))
    }

    fn precision(&self) -> Precision {
        self.precision
    }
}

/// Error for a tensor whose values a dtype cannot hold.
pub(crate) fn refused(path: &Path, name: &str, dtype: WeightDtype, refusal: QuantizeError) -> Error {
    Error::Unquantizable {
        path: path.to_owned(),
        name: name.to_owned(),
        form: dtype,
        reason: refusal.to_string(),
    }
}
