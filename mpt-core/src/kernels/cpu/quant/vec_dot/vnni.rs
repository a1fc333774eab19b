//! Int8 kernel with AVX-512 VNNI: four unsigned times four signed bytes a lane.

#![expect(unsafe_code, reason = "vector instructions")]

use std::arch::x86_64::*;

use crate::kernels::cpu::quant::activations::Int8Activations;
use crate::kernels::cpu::quant::unpack::{QUAD, SuperBlock};
use crate::kernels::cpu::quant::{GROUP, PANEL_ROWS};

/// As [`add_super_block`](super::add_super_block).
pub(super) fn add_super_block(
    acc: &mut [[f32; PANEL_ROWS]],
    x: &Int8Activations,
    from: usize,
    index: usize,
    block: &SuperBlock,
) {
    // SAFETY: the level of the caller says that the processor has AVX-512 F, BW and VNNI.
    unsafe {
        match (block.header.group_len, block.header.has_mins) {
            (16, _) => add_groups::<4, false>(acc, x, from, index, block),
            (_, true) => add_groups::<8, true>(acc, x, from, index, block),
            (_, false) => add_groups::<8, false>(acc, x, from, index, block),
        }
    }
}

/// [`add_super_block`] for groups of `QUADS` quads.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_groups<const QUADS: usize, const HAS_MINS: bool>(
    acc: &mut [[f32; PANEL_ROWS]],
    x: &Int8Activations,
    from: usize,
    index: usize,
    block: &SuperBlock,
) {
    let mut first = 0;
    while first < acc.len() {
        let (acc, row) = (&mut acc[first..], from + first);
        first += match acc.len() {
            8.. => add_rows::<8, QUADS, HAS_MINS>(acc, x, row, index, block),
            4.. => add_rows::<4, QUADS, HAS_MINS>(acc, x, row, index, block),
            2.. => add_rows::<2, QUADS, HAS_MINS>(acc, x, row, index, block),
            _ => add_rows::<1, QUADS, HAS_MINS>(acc, x, row, index, block),
        };
    }
}

/// R rows at once, which share the loads of codes and scales; returns R.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_rows<const R: usize, const QUADS: usize, const HAS_MINS: bool>(
    acc: &mut [[f32; PANEL_ROWS]],
    x: &Int8Activations,
    row: usize,
    index: usize,
    block: &SuperBlock,
) -> usize {
    let groups: [_; R] = std::array::from_fn(|r| x.groups(row + r, index));
    let codes: [_; R] = std::array::from_fn(|r| &x.codes(row + r, index)[..block.header.groups * GROUP]);
    let offset = _mm512_set1_epi8(-128);
    let mut regs = [_mm512_setzero_ps(); R];
    for r in 0..R {
        // SAFETY: a row of accumulators is 64 bytes.
        regs[r] = unsafe { _mm512_loadu_ps(acc[r].as_ptr()) };
    }
    for group in 0..block.header.groups * (GROUP / QUAD) / QUADS {
        let x_group = group * QUADS * QUAD / GROUP;
        // weights become unsigned by adding 128, so each dot product starts at -128 times the sum of codes of x
        let mut dots: [__m512i; R] = std::array::from_fn(|r| {
            let code_sums = groups[r][x_group].code_sums;
            let sum = if QUADS == 4 { code_sums[group % 2] } else { code_sums[0] + code_sums[1] };
            _mm512_set1_epi32(-128 * sum)
        });
        for quad in group * QUADS..(group + 1) * QUADS {
            // SAFETY: a line is 64 bytes on a boundary of 64.
            let weights = unsafe { _mm512_load_si512(block.codes[quad].as_ptr().cast()) };
            let weights = _mm512_xor_si512(weights, offset);
            for r in 0..R {
                // SAFETY: `codes` holds `groups * 32` codes, four for each of the quads.
                let quad = unsafe { codes[r].as_ptr().add(quad * QUAD).cast::<i32>().read_unaligned() };
                dots[r] = _mm512_dpbusd_epi32(dots[r], weights, _mm512_set1_epi32(quad));
            }
        }
        // SAFETY: rows of scales and minima are 64 bytes.
        let scale = unsafe { _mm512_loadu_ps(block.header.scales[group].as_ptr()) };
        for r in 0..R {
            let x = groups[r][x_group];
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(x.scale));
            regs[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), scale, regs[r]);
            if HAS_MINS {
                // SAFETY: as above.
                let min = unsafe { _mm512_loadu_ps(block.header.mins[group].as_ptr()) };
                regs[r] = _mm512_fnmadd_ps(min, _mm512_set1_ps(x.scaled_sum), regs[r]);
            }
        }
    }
    for r in 0..R {
        // SAFETY: a row of accumulators is 64 bytes.
        unsafe { _mm512_storeu_ps(acc[r].as_mut_ptr(), regs[r]) }
    }
    R
}
