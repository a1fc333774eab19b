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
///
/// Sums of four groups are computed while those of the four before, which are on their way to memory, are added up.
pub(super) fn add_span(sums: &mut [[f32; LANES]], x: &Activations, from: usize, index: usize, span: &Span) {
    let by_tiles = if sums.len() % ROWS >= ROWS_WORTH { sums.len() } else { sums.len() / ROWS * ROWS };
    let (by_tiles, rest) = sums.split_at_mut(by_tiles);
    let after = from + by_tiles.len();
    let tiles = Tiles::of_groups(span.head.group);
    let mut dots = [const { Dots([[[0; LANES]; ROWS]; AT_ONCE]) }; 2];
    let fours = (span.head.groups * GROUP / span.head.group).div_ceil(AT_ONCE);
    let steps = by_tiles.len().div_ceil(ROWS) * fours;
    let place = |step| (step / fours * ROWS, step % fours * AT_ONCE);
    for step in 0..=steps {
        if step < steps {
            let (row, first) = place(step);
            multiply(&tiles, &mut dots[step % 2], x, from + row, index, span, first);
        }
        if let Some(before) = step.checked_sub(1) {
            let (row, first) = place(before);
            let sums = &mut by_tiles[row..];
            let len = sums.len().min(ROWS);
            let part = Part { x, row: from + row, index, span, first };
            // SAFETY: a processor with matrix tiles has AVX-512 F.
            unsafe { add_scaled(&mut sums[..len], &dots[before % 2], &part) }
        }
    }
    drop(tiles);
    if !rest.is_empty() {
        vnni::add_span(rest, x, after, index, span);
    }
}

/// Four groups from `first` on, of 16 rows of x from `row` on.
struct Part<'a> {
    x: &'a Activations,
    row: usize,
    index: usize,
    span: &'a Span,
    first: usize,
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
fn add_scaled(sums: &mut [[f32; LANES]], dots: &Dots, part: &Part<'_>) {
    let head = &part.span.head;
    let groups = head.groups * GROUP / head.group - part.first;
    match (groups.min(AT_ONCE), head.group, head.with_mins) {
        (AT_ONCE, 16, _) => add_groups::<AT_ONCE, 2, false>(sums, dots, part),
        (AT_ONCE, _, true) => add_groups::<AT_ONCE, 1, true>(sums, dots, part),
        (AT_ONCE, _, false) => add_groups::<AT_ONCE, 1, false>(sums, dots, part),
        // spans that are not whole: only forms with blocks of 32 have them
        (3, ..) => add_groups::<3, 1, false>(sums, dots, part),
        (2, ..) => add_groups::<2, 1, false>(sums, dots, part),
        _ => add_groups::<1, 1, false>(sums, dots, part),
    }
}

/// `COUNT` groups, of which `SHARE` share a scale of x.
#[target_feature(enable = "avx512f")]
fn add_groups<const COUNT: usize, const SHARE: usize, const MINS: bool>(
    sums: &mut [[f32; LANES]],
    dots: &Dots,
    part: &Part<'_>,
) {
    let head = &part.span.head;
    let (mut scales, mut mins) = ([_mm512_setzero_ps(); COUNT], [_mm512_setzero_ps(); COUNT]);
    for j in 0..COUNT {
        // SAFETY: rows of scales and minima are 64 bytes.
        unsafe {
            scales[j] = _mm512_loadu_ps(head.scales[part.first + j].as_ptr());
            if MINS {
                mins[j] = _mm512_loadu_ps(head.mins[part.first + j].as_ptr());
            }
        }
    }
    for (i, sums) in sums.iter_mut().enumerate() {
        let of_x = &part.x.groups(part.row + i, part.index)[part.first / SHARE..];
        let of_x = &of_x[..COUNT.div_ceil(SHARE)];
        // SAFETY: rows of sums and dots are 64 bytes.
        unsafe {
            let mut total = _mm512_loadu_ps(sums.as_ptr());
            for j in 0..COUNT {
                let x = &of_x[j / SHARE];
                let scale = _mm512_mul_ps(scales[j], _mm512_set1_ps(x.scale));
                let dots = _mm512_cvtepi32_ps(_mm512_load_si512(dots.0[j][i].as_ptr().cast()));
                total = _mm512_fmadd_ps(dots, scale, total);
                if MINS {
                    total = _mm512_fnmadd_ps(mins[j], _mm512_set1_ps(x.total), total);
                }
            }
            _mm512_storeu_ps(sums.as_mut_ptr(), total);
        }
    }
}
