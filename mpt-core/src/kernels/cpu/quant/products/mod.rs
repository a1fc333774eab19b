//! Sums of products of codes, scaled: one file an instruction set.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod few;
mod plain;
#[cfg(target_arch = "x86_64")]
mod vnni;

use super::LANES;
use super::activations::Activations;
use super::unpack::{Span, span_bytes, unpack};
use crate::dtype::WeightDtype;
use crate::kernels::cpu::dispatch::Level;

/// Adds to `sums[panel][i]` the products of each of some panels with row `from + i` of `x`.
///
/// The panels are read side by side, a span of each in turn: plain reading is faster in two streams than in one, though
/// products showed no difference yet.
pub(super) fn add_panels(
    level: Level,
    sums: &mut [&mut [[f32; LANES]]],
    x: &Activations,
    from: usize,
    format: WeightDtype,
    panels: &[&[u8]],
) {
    let mut room = Span::ZERO;
    for (index, at) in (0..panels[0].len()).step_by(span_bytes(format)).enumerate() {
        for (sums, panel) in sums.iter_mut().zip(panels) {
            let bytes = &panel[at..panel.len().min(at + span_bytes(format))];
            #[cfg(target_arch = "x86_64")]
            if level >= Level::Avx512Bf16 && sums.len() <= few::ROWS {
                few::add_span(sums, x, from, index, format, bytes);
                continue;
            }
            unpack(format, bytes, &mut room);
            add_span(level, sums, x, from, index, &room);
        }
    }
}

/// Adds to `sums[i]` the products of the span `index` of a panel with row `from + i` of `x`.
///
/// For every group of the weight, in order: `sum = f32(codes) * (scale * x scale) + sum`, then, where there are minima,
/// `sum = -min * x total + sum`, each rounded once.
fn add_span(
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
