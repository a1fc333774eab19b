//! Causal attention with ALiBi: by blocks of queries, forward and backward (`blocks`), and over a cache (`cached`), where
//! few queries have a kernel of their own (`decode`).
//!
//! Legend: b batch, s queries, t keys, h heads, g key/value heads, e head_dim.

use std::ops::Range;

use super::gemm::{Mat, Products};

mod blocks;
pub(crate) mod cached;
pub(crate) mod decode;
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

/// Keys or values in any form, given as matrices of f32.
pub(crate) trait KeyRows: Copy + Sync {
    /// Calls `each` with the rows `rows` of one head, in order and in pieces `[piece, e]`; the range counts from `rows.start`.
    fn each_piece(
        self,
        batch: usize,
        rows: Range<usize>,
        head: usize,
        e: usize,
        each: impl FnMut(Range<usize>, Mat<'_>),
    );
}

impl KeyRows for Heads<'_> {
    fn each_piece(
        self,
        batch: usize,
        rows: Range<usize>,
        head: usize,
        e: usize,
        mut each: impl FnMut(Range<usize>, Mat<'_>),
    ) {
        each(0..rows.len(), self.matrix(batch, rows, head, e));
    }
}

/// Sizes and constants of one call.
#[derive(Clone, Copy)]
pub(crate) struct Shape<'a> {
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
    pub(crate) products: Products,
    /// Position of the first query of each batch row among its keys.
    pub(crate) start: &'a [usize],
    /// First key each query sees, `[b, s]`; without it every query sees from key 0.
    pub(crate) first_key: Option<&'a [u32]>,
}

impl Shape<'_> {
    /// The keys that query `row` sees: it is never empty, since a token sees itself.
    fn visible(&self, batch: usize, row: usize) -> Range<usize> {
        let first = self.first_key.map_or(0, |first| first[batch * self.seq + row] as usize);
        first..self.start[batch] + row + 1
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
