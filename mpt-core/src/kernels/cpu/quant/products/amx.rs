//! Products with the matrix unit: 16 rows of activations with 16 rows of the weight over one group.

#![expect(unsafe_code, reason = "tile and vector instructions")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::vnni;
use crate::kernels::cpu::amx::Tiles;
use crate::kernels::cpu::quant::activations::Activations;
use crate::kernels::cpu::quant::panel::LINE;
use crate::kernels::cpu::quant::unpack::{QUAD, Span};
use crate::kernels::cpu::quant::{GROUP, LANES};

/// Rows from which on tiles are faster than vectors.
pub(super) const ROWS_WORTH: usize = 12;

/// Rows of a tile.
const ROWS: usize = 16;

/// Groups whose sums wait in memory together.
const AT_ONCE: usize = 4;

/// Sums of products of codes: `[group][row of x][row of the weight]`.
#[repr(C, align(64))]
struct Dots([[[i32; LANES]; ROWS]; AT_ONCE]);

/// See [`add_span`](super::add_span).
pub(super) fn add_span(sums: &mut [[f32; LANES]], x: &Activations, from: usize, index: usize, span: &Span) {
    let by_tiles = if sums.len() % ROWS >= ROWS_WORTH { sums.len() } else { sums.len() / ROWS * ROWS };
    let (by_tiles, rest) = sums.split_at_mut(by_tiles);
    let after = from + by_tiles.len();
    let tiles = Tiles::of_groups(span.head.group);
    let mut dots = Dots([[[0; LANES]; ROWS]; AT_ONCE]);
    for (i, sums) in by_tiles.chunks_mut(ROWS).enumerate() {
        let row = from + i * ROWS;
        for first in (0..span.head.groups * GROUP / span.head.group).step_by(AT_ONCE) {
            multiply(&tiles, &mut dots, x, row, index, span, first);
            // SAFETY: a processor with matrix tiles has AVX-512 F.
            unsafe { add_scaled(sums, &dots, x, row, index, span, first) }
        }
    }
    drop(tiles);
    if !rest.is_empty() {
        vnni::add_span(rest, x, after, index, span);
    }
}

/// Sums of products of four groups from `first` on, for 16 rows from `row` on.
fn multiply(
    _: &Tiles,
    dots: &mut Dots,
    x: &Activations,
    row: usize,
    index: usize,
    span: &Span,
    first: usize,
) {
    let stride = x.stride();
    let codes = &x.codes(row, index);
    assert!(codes.len() >= (ROWS - 1) * stride + span.codes.len() * QUAD, "rows of activations are missing");
    let lines = span.head.group / QUAD * LINE;
    for (group, dots) in (first..).zip(&mut dots.0) {
        // groups that do not exist hold codes of an earlier span; nobody reads their sums
        let (weights, codes) = (span.codes.as_ptr().cast::<i8>(), codes.as_ptr());
        // SAFETY: tiles are in use, with rows of one group's columns. Codes of x reach over 16 rows, as just checked;
        // lines of the weight's and `dots` are whole tiles of this group.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm1, [{x} + {x_step}*1]",
                "tileloadd tmm2, [{w} + {line}*1]",
                "tdpbssd tmm0, tmm1, tmm2",
                "tilestored [{to} + {line}*1], tmm0",
                x = in(reg) codes.add(group * span.head.group), x_step = in(reg) stride,
                w = in(reg) weights.add(group * lines), line = in(reg) LINE,
                to = in(reg) dots.as_mut_ptr(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _,
                options(nostack),
            );
        }
    }
}

/// Adds four groups' scaled sums, in order.
#[target_feature(enable = "avx512f")]
fn add_scaled(
    sums: &mut [[f32; LANES]],
    dots: &Dots,
    x: &Activations,
    row: usize,
    index: usize,
    span: &Span,
    first: usize,
) {
    let count = (span.head.groups * GROUP / span.head.group - first).min(AT_ONCE);
    for (i, sums) in sums.iter_mut().enumerate() {
        let groups = x.groups(row + i, index);
        // SAFETY: rows of sums, scales, minima and dots are 64 bytes.
        unsafe {
            let mut total = _mm512_loadu_ps(sums.as_ptr());
            for j in 0..count {
                let group = first + j;
                let of_x = &groups[group * span.head.group / GROUP];
                let scale = _mm512_loadu_ps(span.head.scales[group].as_ptr());
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(of_x.scale));
                let dots = _mm512_cvtepi32_ps(_mm512_load_si512(dots.0[j][i].as_ptr().cast()));
                total = _mm512_fmadd_ps(dots, scale, total);
                if span.head.with_mins {
                    let min = _mm512_loadu_ps(span.head.mins[group].as_ptr());
                    total = _mm512_fnmadd_ps(min, _mm512_set1_ps(of_x.total), total);
                }
            }
            _mm512_storeu_ps(sums.as_mut_ptr(), total);
        }
    }
}
