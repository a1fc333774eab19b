//! Keys and values as a cache holds them: f32, bf16, or int8 with one scale a vector.
//!
//! What a vector x of finite numbers reads back as: from f32, x itself; from bf16, each number within 2^-8 of its size
//! (above 2^-126, below 2^127); from int8, each number within `max |x| / 254` times 1.0001 (for `max |x|` above 2^-119). A vector
//! with a number that is not finite never reads back as finite: bf16 keeps the number, int8 makes all of the vector NaN.

use std::ops::Range;

use super::KeyRows;
use super::paged::{widen_bf16, widen_int8};
use crate::kernels::cpu::dispatch::for_each_level;
use crate::kernels::cpu::gemm::Mat;

/// Rows widened at once for a matrix product: 128 KiB of f32 at a `head_dim` of 128.
const PIECE: usize = 256;

/// Vectors `[n, e]` of one form.
#[derive(Clone, Copy)]
pub(crate) enum Vectors<'a> {
    /// The numbers.
    F32(&'a [f32]),
    /// The upper halves of the numbers' bits.
    Bf16(&'a [u16]),
    /// Number i of vector n is `values[n * e + i] * scales[n]`.
    Int8 { values: &'a [i8], scales: &'a [f32] },
}

impl<'a> Vectors<'a> {
    /// The vectors `range` of those of `e` numbers.
    #[inline]
    pub(super) fn slice(self, range: Range<usize>, e: usize) -> Self {
        let numbers = range.start * e..range.end * e;
        match self {
            Self::F32(values) => Self::F32(&values[numbers]),
            Self::Bf16(values) => Self::Bf16(&values[numbers]),
            Self::Int8 { values, scales } => Self::Int8 { values: &values[numbers], scales: &scales[range] },
        }
    }

    /// The numbers before they are scaled, held in `wide` where they are not f32 already.
    #[inline]
    pub(super) fn unscaled<'w>(self, wide: &'w mut [f32]) -> &'w [f32]
    where
        'a: 'w,
    {
        match self {
            Self::F32(values) => values,
            Self::Bf16(values) => {
                widen_bf16(values, &mut wide[..values.len()]);
                &wide[..values.len()]
            }
            Self::Int8 { values, .. } => {
                widen_int8(values, &mut wide[..values.len()]);
                &wide[..values.len()]
            }
        }
    }

    /// The numbers as they lie.
    #[inline]
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::Bf16(values) => bytemuck::cast_slice(values),
            Self::Int8 { values, .. } => bytemuck::cast_slice(values),
        }
    }

    /// One scale a vector, where they have scales.
    #[inline]
    pub(super) fn scales(self) -> Option<&'a [f32]> {
        match self {
            Self::Int8 { scales, .. } => Some(scales),
            _ => None,
        }
    }

    /// Writes the vectors of `e` numbers as f32.
    pub(crate) fn widen(self, e: usize, out: &mut [f32]) {
        match self {
            Self::F32(values) => out.copy_from_slice(values),
            Self::Bf16(values) => widen_bf16(values, out),
            Self::Int8 { values, scales } => {
                widen_int8(values, out);
                for (vector, &scale) in out.chunks_exact_mut(e).zip(scales) {
                    scale_all(vector, scale);
                }
            }
        }
    }
}

/// The vectors of all rows and heads, `[b, g, capacity, e]`.
#[derive(Clone, Copy)]
pub(crate) struct Cached<'a> {
    pub(crate) vectors: Vectors<'a>,
    pub(crate) kv_n_heads: usize,
    pub(crate) capacity: usize,
}

impl<'a> Cached<'a> {
    /// The vectors of the tokens `tokens` of one row and head, `e` numbers each.
    pub(crate) fn of_head(self, batch: usize, head: usize, tokens: Range<usize>, e: usize) -> Vectors<'a> {
        assert!(tokens.end <= self.capacity, "tokens {tokens:?} of a cache of {}", self.capacity);
        let first = (batch * self.kv_n_heads + head) * self.capacity;
        self.vectors.slice(first + tokens.start..first + tokens.end, e)
    }
}

impl KeyRows for Cached<'_> {
    fn each_piece(
        self,
        batch: usize,
        rows: Range<usize>,
        head: usize,
        e: usize,
        mut each: impl FnMut(Range<usize>, Mat<'_>),
    ) {
        let (n, vectors) = (rows.len(), self.of_head(batch, head, rows, e));
        if let Vectors::F32(values) = vectors {
            return each(0..n, Mat::new(values, n, e, e));
        }
        let mut wide = vec![0f32; PIECE.min(n) * e];
        for from in (0..n).step_by(PIECE) {
            let piece = from..(from + PIECE).min(n);
            let wide = &mut wide[..piece.len() * e];
            vectors.slice(piece.clone(), e).widen(e, wide);
            each(piece.clone(), Mat::new(wide, piece.len(), e, e));
        }
    }
}

for_each_level! {
    fn scale_all(values: &mut [f32], scale: f32) {
        for value in values {
            *value *= scale;
        }
    }
}
