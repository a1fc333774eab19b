//! A parameter's values: an f32 tensor, or as they lie in a file.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::storage::StoredTensor;

/// One parameter.
#[derive(Clone, Debug)]
pub enum Parameter {
    /// An f32 tensor, perhaps a variable.
    Tensor(Tensor),
    /// Values as they lie in a file, frozen, widened to f32 where they are used.
    Stored(StoredTensor),
}

impl Parameter {
    /// The shape.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Tensor(tensor) => tensor.dims(),
            Self::Stored(stored) => stored.shape(),
        }
    }

    /// The values as an f32 tensor: itself, or a widened copy.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        match self {
            Self::Tensor(tensor) => Ok(tensor.clone()),
            Self::Stored(stored) => stored.to_tensor(device),
        }
    }

    /// The values where a gradient may change them: frozen ones have none.
    pub fn trainable(&self) -> Option<&Tensor> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            Self::Stored(_) => None,
        }
    }
}
