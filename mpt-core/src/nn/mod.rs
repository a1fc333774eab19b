//! Layers: parameters, forward pass, backward pass, and what the one saves for the other. A layer a file.
//!
//! A layer's `forward` gives its result; where the backward pass needs more than the input, `forward_train` gives that
//! too. `backward` takes the gradient of the result, hands those of parameters to a [`GradSink`](crate::GradSink), and
//! returns that of the input. Activations are `[tokens, width]`, the rows of a batch one after another.

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

/// What a training pass knows besides activations.
#[derive(Clone, Copy, Debug)]
pub struct TrainContext<'a> {
    /// What each token sees.
    pub mask: &'a AttnMask,
    /// What dropout is drawn from; nothing is dropped where absent.
    pub dropout: Option<StepDropout>,
}

/// What the dropout of one step is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepDropout {
    /// Seed of the step.
    pub seed: u64,
    /// Number of the first row among those of the whole batch.
    pub first_row: u64,
}

/// Where in a model something is dropped.
#[derive(Clone, Copy, Debug)]
enum DropoutSite {
    Embedding,
    AttentionWeights(usize),
    AttentionOutput(usize),
    FfnOutput(usize),
}

impl TrainContext<'_> {
    /// Dropout at `site`, of which a row has `row_len` elements.
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
