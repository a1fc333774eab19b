//! Conversion of a model between file formats and dtypes, tensor by tensor in chunks.
//!
//! Source files are read through a buffer, not through the memory map, so that memory use does not depend on the model's
//! size. Parsing is in `weights`, rounding in the kernels.

mod copy;
mod folder;
mod gguf;
mod hf;
mod nf4;
mod random_init;
mod rounding_error;

use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::dtype::WeightDtype;
use crate::error::{Error, Result};
use crate::lora::Adapter;
use crate::params::{ParamId, ParamKind};
use crate::source::LoraWeights;

pub use gguf::write_gguf;
pub use hf::{config_json, write_hf};
pub use random_init::write_random_init;

/// Options of a conversion.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConvertOptions<'a> {
    /// Dtype of matrices; that of the source by default, bf16 when the source is quantized.
    pub dtype: Option<WeightDtype>,
    /// Adapter to merge: `W + scale * B A`, computed in f32 and rounded once.
    pub adapter: Option<&'a Adapter>,
    /// Largest size of a weights file, in bytes; for folders only.
    pub max_shard_size: Option<u64>,
}

impl ConvertOptions<'_> {
    /// LoRA matrices of the tensor `name`.
    fn lora(&self, name: &str) -> Option<LoraWeights> {
        let id: ParamId = name.parse().ok()?;
        self.adapter.filter(|_| id.kind == ParamKind::Weight)?.layer(id.module)
    }
}

/// Progress callback: takes the bytes just written, and may interrupt the conversion.
pub type OnBytes<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

fn report(on_bytes: OnBytes<'_>, bytes: u64) -> Result<()> {
    match on_bytes(bytes) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    }
}

/// Report of a conversion.
#[derive(Clone, Debug)]
pub struct ConvertedModel {
    /// Weights files.
    pub files: Vec<PathBuf>,
    /// Dtype requested for matrices.
    pub dtype: WeightDtype,
    /// Dtype of the tensors that `dtype` does not apply to.
    pub other_dtype: WeightDtype,
    /// Total bytes of the tensors.
    pub bytes: u64,
    /// Tensors in the order written.
    pub tensors: Vec<ConvertedTensor>,
}

/// Report of one converted tensor.
#[derive(Clone, Debug)]
pub struct ConvertedTensor {
    /// Checkpoint name.
    pub name: String,
    /// Dtype.
    pub dtype: WeightDtype,
    /// Shape; a linear is `[out, in]`.
    pub shape: Vec<usize>,
    /// Size in the file, in bytes.
    pub bytes: u64,
    /// Squared L2 norm of the values; 0 when the bytes were copied.
    pub squared_norm: f64,
    /// Squared L2 norm of the rounding error.
    pub squared_error: f64,
}

impl ConvertedModel {
    /// Dtypes of the matrices, by decreasing number of values.
    pub fn matrix_dtypes(&self) -> Vec<WeightDtype> {
        dtypes_by_size(self.tensors.iter().map(|tensor| (&tensor.shape[..], tensor.dtype)))
    }
}

/// Dtypes of the matrices among `tensors`, by decreasing number of values.
fn dtypes_by_size<'a>(tensors: impl Iterator<Item = (&'a [usize], WeightDtype)>) -> Vec<WeightDtype> {
    let mut dtypes: Vec<(usize, WeightDtype)> = Vec::new();
    for (shape, dtype) in tensors.filter(|(shape, _)| shape.len() > 1) {
        let values: usize = shape.iter().product();
        match dtypes.iter_mut().find(|(_, known)| *known == dtype) {
            Some((sum, _)) => *sum += values,
            None => dtypes.push((values, dtype)),
        }
    }
    dtypes.sort_by_key(|&(values, _)| std::cmp::Reverse(values));
    dtypes.into_iter().map(|(_, dtype)| dtype).collect()
}

impl ConvertedTensor {
    /// Number of values.
    pub fn num_values(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}

impl ConvertOptions<'_> {
    /// Dtype for the matrices of a source with dtype `source`.
    fn matrix_dtype_for(&self, source: Option<WeightDtype>) -> WeightDtype {
        self.dtype.unwrap_or_else(|| unquantized(source))
    }
}

/// Dtype of a source's matrices; bf16 when they are quantized or mixed.
fn unquantized(source: Option<WeightDtype>) -> WeightDtype {
    source.filter(|dtype| !dtype.is_quantized()).unwrap_or(WeightDtype::BF16)
}
