//! Int8 kernel with AVX2: unsigned times signed bytes to sums of pairs, then of quads.

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
    for (i, acc) in acc.iter_mut().enumerate() {
        // SAFETY: the level of the caller says that the processor has AVX2 and FMA.
        unsafe { add_row(acc, x, from + i, index, block) }
    }
}

/// [`add_super_block`] for one row of `x`.
#[target_feature(enable = "avx2,fma")]
fn add_row(acc: &mut [f32; PANEL_ROWS], x: &Int8Activations, row: usize, index: usize, block: &SuperBlock) {
    let (codes, groups) = (x.codes(row, index), x.groups(row, index));
    for half in 0..2 {
        let lanes = half * 8;
        // SAFETY: 8 of 16 accumulators.
        let mut sum = unsafe { _mm256_loadu_ps(acc[lanes..].as_ptr()) };
        for group in 0..block.header.groups * GROUP / block.header.group_len {
            let columns = group * block.header.group_len..(group + 1) * block.header.group_len;
            let x_group = &groups[columns.start / GROUP];
            let dots = dots(&codes[columns.clone()], block, columns.start / QUAD, half);
            // SAFETY: 8 of 16 scales, and of 16 minima.
            let scale = unsafe { _mm256_loadu_ps(block.header.scales[group][lanes..].as_ptr()) };
            let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x_group.scale));
            sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, sum);
            if block.header.has_mins {
                // SAFETY: as above.
                let min = unsafe { _mm256_loadu_ps(block.header.mins[group][lanes..].as_ptr()) };
                sum = _mm256_fnmadd_ps(min, _mm256_set1_ps(x_group.scaled_sum), sum);
            }
        }
        // SAFETY: 8 of 16 accumulators.
        unsafe { _mm256_storeu_ps(acc[lanes..].as_mut_ptr(), sum) }
    }
}

/// Dot products of the codes of one row of `x` with 8 rows of the weight, from quad `first` on.
#[target_feature(enable = "avx2")]
fn dots(codes: &[i8], block: &SuperBlock, first: usize, half: usize) -> __m256i {
    let mut dots = _mm256_setzero_si256();
    let ones = _mm256_set1_epi16(1);
    for (codes, line) in codes.chunks_exact(QUAD).zip(&block.codes[first..]) {
        let quad = i32::from_le_bytes([codes[0] as u8, codes[1] as u8, codes[2] as u8, codes[3] as u8]);
        // SAFETY: 32 of 64 bytes.
        let weights = unsafe { _mm256_loadu_si256(line[half * 32..].as_ptr().cast()) };
        // |w| times x with the sign of w: at most 2 * 128 * 127, which 16 bits hold
        let signed = _mm256_sign_epi8(_mm256_set1_epi32(quad), weights);
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), signed);
        dots = _mm256_add_epi32(dots, _mm256_madd_epi16(pairs, ones));
    }
    dots
}
