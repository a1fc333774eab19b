//! Causal attention with ALiBi: among the tokens of a batch, forward and backward (`blocks`), and over the pages of a cache
//! (`paged`).
//!
//! Legend: b batch, s queries, t keys, h heads, g key/value heads, e head_dim.

use std::ops::Range;

use super::gemm::Mat;
use crate::dtype::Precision;
use crate::rng::Dropout;

mod blocks;
pub(crate) mod paged;

pub(crate) use blocks::{Saved, backward, forward};

/// Heads side by side: element (b, position, head, i) is `data[b * batch_stride + position * row_stride + head * e + i]`.
#[derive(Clone, Copy)]
pub(crate) struct Heads<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) batch_stride: usize,
    pub(crate) row_stride: usize,
}

impl<'a> Heads<'a> {
    /// The rows `rows` of one head as a matrix `[rows, e]`.
    fn matrix(self, batch: usize, rows: Range<usize>, head: usize, e: usize) -> Mat<'a> {
        let from = batch * self.batch_stride + rows.start * self.row_stride + head * e;
        Mat::new(&self.data[from..], rows.len(), e, self.row_stride)
    }

    fn row(self, batch: usize, row: usize, head: usize, e: usize) -> &'a [f32] {
        let from = batch * self.batch_stride + row * self.row_stride + head * e;
        &self.data[from..from + e]
    }
}

/// Sizes and constants of one call.
#[derive(Clone, Copy)]
pub(crate) struct Shape<'a> {
    pub(crate) batch: usize,
    pub(crate) seq: usize,
    pub(crate) n_heads: usize,
    pub(crate) kv_n_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) scale: f32,
    /// Soft bound on the scaled scores, before the bias.
    pub(crate) cap: Option<f32>,
    /// One slope per head; all zero without ALiBi.
    pub(crate) slopes: &'a [f32],
    /// How factors of matrix products are rounded.
    pub(crate) precision: Precision,
    /// First key each query sees, `[b, s]`; without it every query sees from key 0.
    pub(crate) first_key: Option<&'a [u32]>,
    /// Dropout of the weights, whose positions are `[b, h, s, s]`.
    pub(crate) dropout: Option<Dropout>,
}

impl Shape<'_> {
    /// The keys that query `row` sees: it is never empty, since a token sees itself.
    fn visible(&self, batch: usize, row: usize) -> Range<usize> {
        let first = self.first_key.map_or(0, |first| first[batch * self.seq + row] as usize);
        first..row + 1
    }

    /// Multiplies the `weights` of a query, of which the first is that of the key `first_key`, by what dropout leaves.
    fn drop_weights(&self, [batch, head, row]: [usize; 3], first_key: usize, weights: &mut [f32]) {
        if let Some(dropout) = self.dropout {
            let at = ((batch * self.n_heads + head) * self.seq + row) * self.seq + first_key;
            weights.iter_mut().zip(dropout.factors(at as u64)).for_each(|(weight, factor)| *weight *= factor);
        }
    }

    /// The keys that any query of a block sees.
    fn block_keys(&self, batch: usize, rows: &Range<usize>) -> Range<usize> {
        let first = rows.clone().map(|row| self.visible(batch, row).start).min().unwrap_or(0);
        first..self.visible(batch, rows.end - 1).end
    }
}

/// Weights below this, of a largest one of 1, count as 0. Even 2^24 of them are less than the last bit of the sum, and
/// products with them would be subnormal, which takes the processor a hundred times as long: under ALiBi, most keys of a
/// long text are that far.
const NEGLIGIBLE: f32 = 1.0 / (1u64 << 63) as f32;

/// A number that is not finite stays what it is.
#[inline(always)]
fn negligible_to_zero(weight: f32) -> f32 {
    if weight < NEGLIGIBLE { 0.0 } else { weight }
}
