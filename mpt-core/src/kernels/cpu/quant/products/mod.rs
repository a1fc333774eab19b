//! Sums of products of codes, scaled: one file an instruction set.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod plain;
#[cfg(target_arch = "x86_64")]
mod vnni;

use super::LANES;
use super::activations::Activations;
use super::unpack::Span;
use crate::kernels::cpu::dispatch::Level;

/// Adds to `sums[i]` the products of the span `index` of a panel with row `from + i` of `x`.
///
/// For every group of the weight, in order: `sum = f32(codes) * (scale * x scale) + sum`, then, where there are minima,
/// `sum = -min * x total + sum`, each rounded once.
pub(super) fn add_span(
    level: Level,
    sums: &mut [[f32; LANES]],
    x: &Activations,
    from: usize,
    index: usize,
    span: &Span,
) {
    #[cfg(target_arch = "x86_64")]
    match level {
        Level::Baseline => plain::add_span(sums, x, from, index, span),
        Level::Avx2 | Level::Avx512 => avx2::add_span(sums, x, from, index, span),
        Level::Avx512Bf16 => vnni::add_span(sums, x, from, index, span),
        Level::Amx if sums.len() < amx::ROWS_WORTH => vnni::add_span(sums, x, from, index, span),
        Level::Amx => amx::add_span(sums, x, from, index, span),
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = level;
        plain::add_span(sums, x, from, index, span);
    }
}
