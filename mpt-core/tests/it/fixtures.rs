//! Shared fixtures: tiny checkpoints with the outputs of the reference code.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;

/// Folder of a case; `None`, with a message, when the fixtures are missing.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn case(name: &str) -> Option<PathBuf> {
    let dir =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/fixtures/mpt-tiny")).join(name);
    if !dir.is_dir() {
        eprintln!("skipped: {} is absent", dir.display());
        return None;
    }
    Some(dir)
}

/// Expected tensors of a case.
pub(crate) struct Expected {
    bytes: Vec<u8>,
}

impl Expected {
    pub(crate) fn read(dir: &std::path::Path) -> Self {
        Self { bytes: std::fs::read(dir.join("expected.safetensors")).expect("a fixture has its numbers") }
    }

    /// Tensor `name`, f32; `None` when the case lacks it.
    pub(crate) fn tensor(&self, name: &str) -> Option<Tensor> {
        let tensors = SafeTensors::deserialize(&self.bytes).expect("a sound fixture");
        let view = tensors.tensor(name).ok()?;
        Some(
            Tensor::from_raw_buffer(view.data(), DType::F32, view.shape(), &Device::Cpu)
                .expect("f32 numbers"),
        )
    }

    /// Rows of ids, masks or labels; negative numbers become `u32::MAX`, the ignored label.
    pub(crate) fn rows(&self, name: &str) -> Option<Vec<Vec<u32>>> {
        let tensors = SafeTensors::deserialize(&self.bytes).expect("a sound fixture");
        let view = tensors.tensor(name).ok()?;
        let width = *view.shape().last().expect("rows");
        let ids =
            view.data().chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().expect("8 bytes")));
        let ids: Vec<u32> = ids.map(|id| u32::try_from(id).unwrap_or(u32::MAX)).collect();
        Some(ids.chunks_exact(width).map(<[u32]>::to_vec).collect())
    }

    /// Names that start with `prefix`, without it.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let tensors = SafeTensors::deserialize(&self.bytes).expect("a sound fixture");
        tensors.names().into_iter().filter_map(|name| name.strip_prefix(prefix)).map(str::to_owned).collect()
    }
}
