//! Layers, one per file: parameters, forward pass, backward pass and saved activations.
//!
//! `forward` returns the output; `forward_train` also returns the activations that `backward` needs. `backward` takes the
//! gradient of the output, hands the gradients of parameters to a [`GradSink`](crate::GradSink), and returns the gradient of
//! the input. Activations are `[tokens, width]`, f32; `tokens` are `batch * seq`.

mod attention;
mod block;
mod embedding;
mod ffn;
mod head;
mod linear;
mod lora;
mod norm;

pub use attention::{Attention, KeyValues};
pub use block::{Block, BlockSaved, BlockSource};
pub use embedding::Embedding;
pub use ffn::Ffn;
pub use head::Head;
pub use linear::Linear;
pub use norm::Norm;

use crate::mask::AttnMask;
use crate::rng::Dropout;

/// Inputs of a training pass besides activations.
#[derive(Clone, Copy, Debug)]
pub struct TrainContext<'a> {
    /// Attention mask.
    pub mask: &'a AttnMask,
    /// Randomness of dropout; `None` disables it.
    pub dropout: Option<StepDropout>,
}

/// Randomness of the dropout in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepDropout {
    /// Seed of the step.
    pub seed: u64,
    /// Index of the first row in the whole batch.
    pub first_row: u64,
}

/// Dropout site, with the layer.
#[derive(Clone, Copy, Debug)]
enum DropoutSite {
    Embedding,
    AttentionWeights(usize),
    AttentionOutput(usize),
    FfnOutput(usize),
}

impl TrainContext<'_> {
    /// Dropout at `site`, where a row of the batch has `row_len` elements; `None` when disabled.
    fn dropout(&self, rate: f64, site: DropoutSite, row_len: usize) -> Option<Dropout> {
        let StepDropout { seed, first_row } = self.dropout.filter(|_| rate > 0.0)?;
        let site = match site {
            DropoutSite::Embedding => 0,
            DropoutSite::AttentionWeights(layer) => 3 * layer as u64 + 1,
            DropoutSite::AttentionOutput(layer) => 3 * layer as u64 + 2,
            DropoutSite::FfnOutput(layer) => 3 * layer as u64 + 3,
        };
        Some(Dropout { rate, seed, site, first: first_row.wrapping_mul(row_len as u64) })
    }
}
