//! A model's parameters out of its files: rounded to the form asked for, in the layout of the kernels.

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
    /// The same weights, their matrices rounded to `format` when they are handed out; f32 leaves every tensor as it is
    /// stored, since widening is exact and happens at use.
    ///
    /// A quantized form is for matrices that it makes smaller; NF4 is for the linears of blocks. A matrix whose rows are
    /// no whole number of blocks gets a wider form ([`WeightDtype::fallback_for`]).
    #[must_use]
    pub fn rounded_to(mut self, format: WeightDtype) -> Self {
        self.round_to = format;
        self
    }

    /// The same weights for a model whose matrix products round their factors so; f32 unless said.
    #[must_use]
    pub fn multiplied_as(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The form in which [`stored`](Self::stored) hands out a tensor.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorDtype`].
    pub fn form(&self, name: &str) -> Result<WeightDtype> {
        let (_, entry, format) = self.place(name)?;
        Ok(dtype_policy::load_dtype(name, &entry.shape, format, self.round_to))
    }

    /// One tensor as it is stored, or rounded where that was asked for. `expected` is the shape it must have.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`], [`Error::TensorDtype`], and [`Error::Unquantizable`] where it is
    /// to be quantized and holds a value that cannot be.
    pub fn stored(&self, name: &str, expected: Option<&[usize]>) -> Result<StoredTensor> {
        let (path, entry, format) = self.place(name)?;
        if let Some(expected) = expected.filter(|&expected| expected != entry.shape) {
            let (actual, expected) = (entry.shape.clone(), expected.to_vec());
            return Err(Error::TensorShape {
                path: path.to_owned(),
                name: name.to_owned(),
                actual,
                expected,
            });
        }
        let form = dtype_policy::load_dtype(name, &entry.shape, format, self.round_to);
        self.as_stored(name)?.rounded(form).map_err(|refusal| refused(path, name, form, refusal))
    }
}

impl ParameterSource for Weights {
    fn get(&self, id: ParamId, shape: &[usize]) -> Result<Parameter> {
        let stored = self.stored(&id.to_string(), Some(shape))?.prepack_int8()?;
        let stored = if self.precision == Precision::Bf16 { stored.prepack_bf16()? } else { stored };
        Ok(Parameter::Stored(stored))
    }

    fn precision(&self) -> Precision {
        self.precision
    }
}

/// The error about a tensor that does not go into a form.
pub(crate) fn refused(path: &Path, name: &str, form: WeightDtype, refusal: QuantizeError) -> Error {
    Error::Unquantizable { path: path.to_owned(), name: name.to_owned(), form, reason: refusal.to_string() }
}
