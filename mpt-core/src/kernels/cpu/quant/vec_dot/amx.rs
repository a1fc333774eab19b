//! Int8 kernel of the matrix unit (AMX): 16 rows of activations with 16 rows of the weight over one group.

#![expect(unsafe_code, reason = "tile and vector instructions")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::vnni;
use crate::kernels::cpu::amx::TileGuard;
use crate::kernels::cpu::quant::activations::Int8Activations;
use crate::kernels::cpu::quant::panel::LINE;
use crate::kernels::cpu::quant::unpack::{QUAD, SuperBlock};
use crate::kernels::cpu::quant::{GROUP, PANEL_ROWS};

/// Rows from which tiles are faster than vectors.
pub(super) const MIN_ROWS: usize = 12;

/// Rows of a tile.
const ROWS: usize = 16;

/// Groups of a step.
const STEP_GROUPS: usize = 4;

/// Dot products of codes, `[group][row of x][row of the weight]`.
#[repr(C, align(64))]
struct DotTiles([[[i32; PANEL_ROWS]; ROWS]; STEP_GROUPS]);

/// As [`add_super_block`](super::add_super_block).
///
/// The dot products of one step are computed while those of the step before, on their way to memory, are accumulated.
pub(super) fn add_super_block(
    acc: &mut [[f32; PANEL_ROWS]],
    x: &Int8Activations,
    from: usize,
    index: usize,
    block: &SuperBlock,
) {
    let tile_rows = if acc.len() % ROWS >= MIN_ROWS { acc.len() } else { acc.len() / ROWS * ROWS };
    let (tiled, rest) = acc.split_at_mut(tile_rows);
    let after = from + tiled.len();
    let tiles = TileGuard::for_int8_group(block.header.group_len);
    let mut dots = [const { DotTiles([[[0; PANEL_ROWS]; ROWS]; STEP_GROUPS]) }; 2];
    let row_steps = (block.header.groups * GROUP / block.header.group_len).div_ceil(STEP_GROUPS);
    let steps = tiled.len().div_ceil(ROWS) * row_steps;
    let row_and_group = |step| (step / row_steps * ROWS, step % row_steps * STEP_GROUPS);
    for step in 0..=steps {
        if step < steps {
            let (row, first) = row_and_group(step);
            dot_tiles(&tiles, &mut dots[step % 2], x, from + row, index, block, first);
        }
        if let Some(before) = step.checked_sub(1) {
            let (row, first) = row_and_group(before);
            let acc = &mut tiled[row..];
            let len = acc.len().min(ROWS);
            let step = DotStep { x, row: from + row, index, block, first };
            // SAFETY: a processor with matrix tiles has AVX-512 F.
            unsafe { add_scaled(&mut acc[..len], &dots[before % 2], &step) }
        }
    }
    drop(tiles);
    if !rest.is_empty() {
        vnni::add_super_block(rest, x, after, index, block);
    }
}

/// [`STEP_GROUPS`] groups from `first` on, of 16 rows of `x` from `row` on.
struct DotStep<'a> {
    x: &'a Int8Activations,
    row: usize,
    index: usize,
    block: &'a SuperBlock,
    first: usize,
}

/// Dot products of [`STEP_GROUPS`] groups from `first` on, for 16 rows from `row` on.
fn dot_tiles(
    _: &TileGuard,
    dots: &mut DotTiles,
    x: &Int8Activations,
    row: usize,
    index: usize,
    block: &SuperBlock,
    first: usize,
) {
    let stride = x.stride();
    let codes = &x.codes(row, index);
    assert!(codes.len() >= (ROWS - 1) * stride + block.codes.len() * QUAD, "rows of activations are missing");
    let lines = block.header.group_len / QUAD * LINE;
    for (group, dots) in (first..).zip(&mut dots.0) {
        // missing groups hold codes of an earlier super-block; nothing reads their dot products
        let (weights, codes) = (block.codes.as_ptr().cast::<i8>(), codes.as_ptr());
        // SAFETY: tiles are configured for the columns of one group. Codes of x reach over 16 rows, as just checked; lines
        // of the weight and `dots` are whole tiles of this group.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm1, [{x} + {x_step}*1]",
                "tileloadd tmm2, [{w} + {line}*1]",
                "tdpbssd tmm0, tmm1, tmm2",
                "tilestored [{to} + {line}*1], tmm0",
                x = in(reg) codes.add(group * block.header.group_len), x_step = in(reg) stride,
                w = in(reg) weights.add(group * lines), line = in(reg) LINE,
                to = in(reg) dots.as_mut_ptr(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _,
                options(nostack),
            );
        }
    }
}

/// Accumulates the scaled dot products of a step, group by group.
#[target_feature(enable = "avx512f")]
fn add_scaled(acc: &mut [[f32; PANEL_ROWS]], dots: &DotTiles, step: &DotStep<'_>) {
    let header = &step.block.header;
    let groups = header.groups * GROUP / header.group_len - step.first;
    match (groups.min(STEP_GROUPS), header.group_len, header.has_mins) {
        (STEP_GROUPS, 16, _) => add_groups::<STEP_GROUPS, 2, false>(acc, dots, step),
        (STEP_GROUPS, _, true) => add_groups::<STEP_GROUPS, 1, true>(acc, dots, step),
        (STEP_GROUPS, _, false) => add_groups::<STEP_GROUPS, 1, false>(acc, dots, step),
        // only dtypes with blocks of 32 have partial super-blocks
        (3, ..) => add_groups::<3, 1, false>(acc, dots, step),
        (2, ..) => add_groups::<2, 1, false>(acc, dots, step),
        _ => add_groups::<1, 1, false>(acc, dots, step),
    }
}

/// [`add_scaled`] for `COUNT` groups, of which `SHARE` share a scale of `x`.
#[target_feature(enable = "avx512f")]
fn add_groups<const COUNT: usize, const SHARE: usize, const HAS_MINS: bool>(
    acc: &mut [[f32; PANEL_ROWS]],
    dots: &DotTiles,
    step: &DotStep<'_>,
) {
    let header = &step.block.header;
    let (mut scales, mut mins) = ([_mm512_setzero_ps(); COUNT], [_mm512_setzero_ps(); COUNT]);
    for j in 0..COUNT {
        // SAFETY: rows of scales and minima are 64 bytes.
        unsafe {
            scales[j] = _mm512_loadu_ps(header.scales[step.first + j].as_ptr());
            if HAS_MINS {
                mins[j] = _mm512_loadu_ps(header.mins[step.first + j].as_ptr());
            }
        }
    }
    for (i, acc) in acc.iter_mut().enumerate() {
        let x_groups = &step.x.groups(step.row + i, step.index)[step.first / SHARE..];
        let x_groups = &x_groups[..COUNT.div_ceil(SHARE)];
        // SAFETY: rows of accumulators and dots are 64 bytes.
        unsafe {
            let mut reg = _mm512_loadu_ps(acc.as_ptr());
            for j in 0..COUNT {
                let x = &x_groups[j / SHARE];
                let scale = _mm512_mul_ps(scales[j], _mm512_set1_ps(x.scale));
                let dots = _mm512_cvtepi32_ps(_mm512_load_si512(dots.0[j][i].as_ptr().cast()));
                reg = _mm512_fmadd_ps(dots, scale, reg);
                if HAS_MINS {
                    reg = _mm512_fnmadd_ps(mins[j], _mm512_set1_ps(x.scaled_sum), reg);
                }
            }
            _mm512_storeu_ps(acc.as_mut_ptr(), reg);
        }
    }
}
