//! Fixtures: tiny checkpoints with the outputs of the reference code.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;

use crate::shared::{golden, shared};

/// Golden cases of transformers and (`f-`) of llm-foundry, which every clone has.
const GOLDEN: [&str; 6] = ["alibi", "three-heads", "clip", "f-qk-ln", "f-gqa", "f-rmsnorm-glu"];

/// Cases beside the checkout, of transformers and (`f-`) of llm-foundry; `f-sequence-id` and the adapter of `lora` have tests
/// of their own.
const SHARED: [&str; 26] = [
    "pow2-heads",
    "nonpow2-heads",
    "odd-heads",
    "head-dim-112",
    "clip-qkv-8",
    "clip-qkv-small",
    "softmax-scale",
    "alibi-max-16",
    "logit-scale",
    "untied",
    "bf16",
    "bf16-bin-sharded",
    "layer-norm-eps",
    "lora",
    "f-plain",
    "f-alibi-max",
    "f-qk-ln",
    "f-qk-gn",
    "f-bias",
    "f-logit-scale",
    "f-learned-pos",
    "f-expansion",
    "f-gqa",
    "f-mqa",
    "f-rmsnorm-glu",
    "f-norm-eps",
];

/// Folder of a case beside the checkout; `None`, with a message, when it is missing.
pub(crate) fn case(name: &str) -> Option<PathBuf> {
    shared("fixtures/mpt-tiny").map(|cases| cases.join(name))
}

/// Name and folder of every golden case, and of every case beside the checkout where they are.
pub(crate) fn cases() -> impl Iterator<Item = (&'static str, PathBuf)> {
    let all = shared("fixtures/mpt-tiny");
    let more = SHARED.into_iter().filter_map(move |name| Some((name, all.as_ref()?.join(name))));
    GOLDEN.into_iter().map(|name| (name, golden(name))).chain(more)
}

/// Folders that are called the same: the golden one, and the one beside the checkout where it is.
pub(crate) fn both(name: &str) -> impl Iterator<Item = PathBuf> {
    [golden(name)].into_iter().chain(case(name))
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
