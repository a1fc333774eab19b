//! Verification of a model: against another model, against recorded logits, or against itself.
//!
//! Every check compares logits position by position and ends in one [`Comparison`]. Memory is bounded: hidden states of
//! some thousand tokens, and logits of a few positions.

mod checks;
mod fixture;
mod limits_by_dtype;
mod models;
mod rows;
mod tally;
mod weights;

use candle_core::{DType, Tensor};
use mpt_core::{AttnMask, CausalLm};

use crate::error::Result;

pub use checks::{Check, SelfReport, first_non_finite, self_check};
pub use fixture::{Fixture, FixtureReport, GreedyReport};
pub use limits_by_dtype::{MatrixDtypes, limits_alone, limits_between};
pub use models::compare_models;
pub use rows::{builtin_rows, windows};
pub use tally::{Comparison, Limits, LogitPosition};
pub use weights::compare_weights;

/// Number of positions whose logits are in memory at once.
const CHUNK: usize = 32;

/// Hidden states `[1, seq, d_model]` of one row without neighbors.
fn hidden_alone(model: &CausalLm, row: &[u32]) -> Result<Tensor> {
    Ok(model.hidden(&[row], &AttnMask::causal(1, row.len()))?)
}

/// Calls `on_logits` with every position of `hidden`, `[1, seq, d_model]`, and its logits, `[vocab]`.
fn for_each_logits(
    model: &CausalLm,
    hidden: &Tensor,
    mut on_logits: impl FnMut(usize, &[f32]),
) -> Result<()> {
    let n = hidden.dim(1)?;
    for at in (0..n).step_by(CHUNK) {
        let count = CHUNK.min(n - at);
        let logits = rows_of(&model.logits(&hidden.narrow(1, at, count)?.contiguous()?)?)?;
        let vocab_size = logits.len() / count;
        for (index, logits) in logits.chunks_exact(vocab_size).enumerate() {
            on_logits(at + index, logits);
        }
    }
    Ok(())
}

/// Values of a tensor in f32, row-major.
fn rows_of(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?)
}

/// Calls `on_pair` with every position and the logits, `[vocab]`, of two models' hidden states of the same tokens.
fn for_each_pair(
    found: (&CausalLm, &Tensor),
    reference: (&CausalLm, &Tensor),
    mut on_pair: impl FnMut(usize, &[f32], &[f32]),
) -> Result<()> {
    let n = found.1.dim(1)?;
    for at in (0..n).step_by(CHUNK) {
        let count = CHUNK.min(n - at);
        let chunk = |(model, hidden): (&CausalLm, &Tensor)| {
            rows_of(&model.logits(&hidden.narrow(1, at, count)?.contiguous()?)?)
        };
        let (found, reference) = (chunk(found)?, chunk(reference)?);
        let vocab_size = found.len() / count;
        let pairs = found.chunks_exact(vocab_size).zip(reference.chunks_exact(vocab_size));
        for (index, (found, reference)) in pairs.enumerate() {
            on_pair(at + index, found, reference);
        }
    }
    Ok(())
}
