//! Causal attention with ALiBi: among the tokens of a batch, forward and backward (`blockwise`), and over the pages of a cache
//! (`paged`).
//!
//! Legend: b batch, s queries, t keys, h heads, g key/value heads, e head_dim.

use std::ops::Range;

use super::gemm::MatRef;
use crate::dtype::Precision;
use crate::rng::Dropout;

mod blockwise;
pub(crate) mod paged;

pub(crate) use blockwise::{BackwardInputs, backward, forward};

/// View of heads side by side: element (b, position, head, i) is `data[b * batch_stride + position * row_stride + head * e + i]`.
#[derive(Clone, Copy)]
pub(crate) struct HeadsView<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) batch_stride: usize,
    pub(crate) row_stride: usize,
}

impl<'a> HeadsView<'a> {
    /// The rows `rows` of one head as a matrix `[rows, e]`.
    fn matrix(self, batch: usize, rows: Range<usize>, head: usize, e: usize) -> MatRef<'a> {
        let from = batch * self.batch_stride + rows.start * self.row_stride + head * e;
        MatRef::new(&self.data[from..], rows.len(), e, self.row_stride)
    }

    /// Row `row` of one head, `[e]`.
    fn row(self, batch: usize, row: usize, head: usize, e: usize) -> &'a [f32] {
        let from = batch * self.batch_stride + row * self.row_stride + head * e;
        &self.data[from..from + e]
    }
}

/// Sizes and constants of one call.
#[derive(Clone, Copy)]
pub(crate) struct AttentionArgs<'a> {
    pub(crate) batch: usize,
    pub(crate) seq: usize,
    pub(crate) n_heads: usize,
    pub(crate) kv_n_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) scale: f32,
    /// Soft cap of the scaled scores, before the bias.
    pub(crate) cap: Option<f32>,
    /// One slope per head; all zero without ALiBi.
    pub(crate) slopes: &'a [f32],
    /// Rounding of factors of matrix products.
    pub(crate) precision: Precision,
    /// First visible key of each query, `[b, s]`; key 0 where absent.
    pub(crate) first_key: Option<&'a [u32]>,
    /// Dropout of the attention weights, at positions `[b, h, s, s]`.
    pub(crate) dropout: Option<Dropout>,
}

impl AttentionArgs<'_> {
    /// View of contiguous heads `[b, s, h, e]`.
    fn contiguous<'d>(&self, data: &'d [f32]) -> HeadsView<'d> {
        let row_stride = self.n_heads * self.head_dim;
        HeadsView { data, batch_stride: self.seq * row_stride, row_stride }
    }

    /// Visible keys of query `row`: never empty, since a token sees itself.
    fn visible(&self, batch: usize, row: usize) -> Range<usize> {
        let first = self.first_key.map_or(0, |first| first[batch * self.seq + row] as usize);
        first..row + 1
    }

    /// Applies dropout to the `weights` of a query, the first of which belongs to key `first_key`.
    fn apply_dropout(&self, [batch, head, row]: [usize; 3], first_key: usize, weights: &mut [f32]) {
        if let Some(dropout) = self.dropout {
            let at = ((batch * self.n_heads + head) * self.seq + row) * self.seq + first_key;
            weights.iter_mut().zip(dropout.factors(at as u64)).for_each(|(weight, factor)| *weight *= factor);
        }
    }

    /// Keys visible to any query of a block.
    fn block_keys(&self, batch: usize, rows: &Range<usize>) -> Range<usize> {
        let first = rows.clone().map(|row| self.visible(batch, row).start).min().unwrap_or(0);
        first..self.visible(batch, rows.end - 1).end
    }
}

/// Attention weight, relative to a largest one of 1, below which weights count as 0.
///
/// 2^24 such weights are less than the last bit of the sum, and their products would be subnormal, which takes the processor a
/// hundred times as long. Under ALiBi most keys of a long text are that far.
const NEGLIGIBLE: f32 = 1.0 / (1u64 << 63) as f32;

/// `weight`, or 0 below [`NEGLIGIBLE`]; infinity and NaN stay.
#[inline(always)]
fn flush_negligible(weight: f32) -> f32 {
    if weight < NEGLIGIBLE { 0.0 } else { weight }
}
