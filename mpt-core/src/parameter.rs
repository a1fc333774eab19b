//! Value of a parameter: an f32 tensor, or a stored tensor of any weight dtype.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::storage::StoredTensor;

/// Value of a parameter.
#[derive(Clone, Debug)]
pub enum Parameter {
    /// f32 tensor, possibly a variable.
    Tensor(Tensor),
    /// Frozen tensor in its stored dtype, widened to f32 at use.
    Stored(StoredTensor),
}

impl Parameter {
    /// Shape.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Tensor(tensor) => tensor.dims(),
            Self::Stored(stored) => stored.shape(),
        }
    }

    /// f32 tensor on `device`; a stored tensor is copied.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        match self {
            Self::Tensor(tensor) => Ok(tensor.clone()),
            Self::Stored(stored) => stored.to_tensor(device),
        }
    }

    /// Tensor that may be trained; `None` for a frozen parameter.
    pub fn trainable(&self) -> Option<&Tensor> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            Self::Stored(_) => None,
        }
    }
}
