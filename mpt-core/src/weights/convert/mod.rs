//! Converting weights from any form to another, tensor by tensor and piece by piece.
//!
//! Files are read through a small buffer, not through the map, so that memory stays the same however large the model is.

mod gguf;
mod hf;
mod rows;

use std::ops::ControlFlow;
use std::path::PathBuf;

use super::format::Format;
use crate::error::{Error, Result};
use crate::lora::Adapter;

pub use gguf::write_gguf;
pub use hf::{config_json, write_drawn, write_hf};

/// What becomes of the weights on their way.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConvertOptions<'a> {
    /// The form of matrices; that of the source where absent, and bf16 where the source is quantized.
    pub format: Option<Format>,
    /// An adapter to fold in: `W + scale * B A`, computed in f32 and rounded once.
    pub adapter: Option<&'a Adapter>,
    /// Bytes of a file at most, before another one is begun; for folders only.
    pub max_shard_size: Option<u64>,
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
    /// The form of the matrices.
    pub format: Format,
    /// Bytes of all tensors.
    pub bytes: u64,
}

impl ConvertOptions<'_> {
    /// The form to write matrices of `source` in.
    fn format_for(&self, source: Option<Format>) -> Format {
        match (self.format, source) {
            (Some(format), _) => format,
            (None, Some(format)) if !format.is_quantized() => format,
            (None, _) => Format::BF16,
        }
    }
}
