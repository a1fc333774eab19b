//! Converting weights from any form to another, tensor by tensor and piece by piece.
//!
//! Files are read through a small buffer, not through the map, so that memory stays the same however large the model is.

mod gguf;
mod hf;
mod measure;
mod nf4;
mod rows;

use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::dtype::WeightDtype;
use crate::error::{Error, Result};
use crate::lora::Adapter;
use crate::params::{ParamId, ParamKind};
use crate::source::LoraWeights;

pub use gguf::write_gguf;
pub use hf::{config_json, write_drawn, write_hf};

/// What becomes of the weights on their way.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConvertOptions<'a> {
    /// The form of matrices; that of the source where absent, and bf16 where the source is quantized.
    pub format: Option<WeightDtype>,
    /// An adapter to fold in: `W + scale * B A`, computed in f32 and rounded once.
    pub adapter: Option<&'a Adapter>,
    /// Bytes of a file at most, before another one is begun; for folders only.
    pub max_shard_size: Option<u64>,
}

impl ConvertOptions<'_> {
    /// What the adapter adds to the tensor `name`.
    fn lora(&self, name: &str) -> Option<LoraWeights> {
        let id: ParamId = name.parse().ok()?;
        self.adapter.filter(|_| id.kind == ParamKind::Weight)?.layer(id.module)
    }
}

/// Hears of bytes written, and may end the work.
pub type OnBytes<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

fn report(on_bytes: OnBytes<'_>, bytes: u64) -> Result<()> {
    match on_bytes(bytes) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    }
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The weights files.
    pub files: Vec<PathBuf>,
    /// The form that matrices were asked for in.
    pub format: WeightDtype,
    /// The form of what that one is not for.
    pub other: WeightDtype,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Every tensor in the order it was written.
    pub tensors: Vec<Written>,
}

/// What became of a tensor.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its checkpoint name.
    pub name: String,
    /// Its form.
    pub format: WeightDtype,
    /// Its shape, a linear as `[out, in]`.
    pub shape: Vec<usize>,
    /// Bytes in the file.
    pub bytes: u64,
    /// Sum of squares of the values, 0 where the bytes are those of the source.
    pub squares: f64,
    /// Sum of squares of what rounding changed.
    pub squared_error: f64,
}

impl Converted {
    /// The forms that matrices were written in, the one of most values first.
    pub fn forms(&self) -> Vec<WeightDtype> {
        forms_of(self.tensors.iter().map(|tensor| (&tensor.shape[..], tensor.format)))
    }
}

/// The forms of matrices of these shapes, the one of most values first.
fn forms_of<'a>(tensors: impl Iterator<Item = (&'a [usize], WeightDtype)>) -> Vec<WeightDtype> {
    let mut forms: Vec<(usize, WeightDtype)> = Vec::new();
    for (shape, format) in tensors.filter(|(shape, _)| shape.len() > 1) {
        let values: usize = shape.iter().product();
        match forms.iter_mut().find(|(_, known)| *known == format) {
            Some((sum, _)) => *sum += values,
            None => forms.push((values, format)),
        }
    }
    forms.sort_by_key(|&(values, _)| std::cmp::Reverse(values));
    forms.into_iter().map(|(_, format)| format).collect()
}

impl Written {
    /// Number of values.
    pub fn num_values(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}

impl ConvertOptions<'_> {
    /// The form to write matrices of `source` in.
    fn format_for(&self, source: Option<WeightDtype>) -> WeightDtype {
        self.format.unwrap_or_else(|| plain(source))
    }
}

/// The form of a source's matrices, bf16 where they are quantized or differ.
fn plain(source: Option<WeightDtype>) -> WeightDtype {
    source.filter(|format| !format.is_quantized()).unwrap_or(WeightDtype::BF16)
}
