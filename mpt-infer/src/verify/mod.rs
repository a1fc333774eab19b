//! Proof that a model is right: against another model, against recorded numbers, or against itself.
//!
//! Every check compares logits position by position and ends in one [`Comparison`]. Memory is bounded: hidden states of
//! some thousand tokens, logits of a few positions.

mod checks;
mod fixture;
mod forms;
mod models;
mod rows;
mod tally;
mod weights;

use candle_core::{DType, Tensor};
use mpt_core::{AttnMask, CausalLm};

use crate::error::Result;

pub use checks::{Check, SelfReport, first_non_finite, self_check};
pub use fixture::{Fixture, FixtureReport, GreedyReport};
pub use forms::{Forms, limits_alone, limits_between};
pub use models::compare_models;
pub use rows::{builtin_rows, windows};
pub use tally::{Comparison, Limits, Place};
pub use weights::compare_weights;

/// Positions whose logits are in memory at once.
const CHUNK: usize = 32;

/// Hidden states `[1, n, d]` of one row on its own.
fn hidden_alone(model: &CausalLm, row: &[u32]) -> Result<Tensor> {
    Ok(model.hidden(&[row], &AttnMask::causal(1, row.len()))?)
}

/// Logits of each of the `n` hidden states `[1, n, d]`, given to `each` with their index.
fn each_logits(model: &CausalLm, hidden: &Tensor, mut each: impl FnMut(usize, &[f32])) -> Result<()> {
    let n = hidden.dim(1)?;
    for at in (0..n).step_by(CHUNK) {
        let count = CHUNK.min(n - at);
        let logits = rows_of(&model.logits(&hidden.narrow(1, at, count)?.contiguous()?)?)?;
        let vocab_size = logits.len() / count;
        for (index, logits) in logits.chunks_exact(vocab_size).enumerate() {
            each(at + index, logits);
        }
    }
    Ok(())
}

/// The values of a tensor, last dimension fastest.
fn rows_of(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?)
}

/// The same over two models' hidden states of the same tokens: `each` is given both logits.
fn each_pair(
    found: (&CausalLm, &Tensor),
    reference: (&CausalLm, &Tensor),
    mut each: impl FnMut(usize, &[f32], &[f32]),
) -> Result<()> {
    let n = found.1.dim(1)?;
    for at in (0..n).step_by(CHUNK) {
        let count = CHUNK.min(n - at);
        let part = |(model, hidden): (&CausalLm, &Tensor)| {
            rows_of(&model.logits(&hidden.narrow(1, at, count)?.contiguous()?)?)
        };
        let (found, reference) = (part(found)?, part(reference)?);
        let vocab_size = found.len() / count;
        let pairs = found.chunks_exact(vocab_size).zip(reference.chunks_exact(vocab_size));
        for (index, (found, reference)) in pairs.enumerate() {
            each(at + index, found, reference);
        }
    }
    Ok(())
}
