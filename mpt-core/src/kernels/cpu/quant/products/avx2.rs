//! Products with AVX2: unsigned times signed bytes to pairs, pairs to sums of four.

#![expect(unsafe_code, reason = "vector instructions")]

use std::arch::x86_64::*;

use crate::kernels::cpu::quant::activations::Activations;
use crate::kernels::cpu::quant::unpack::{QUAD, Span};
use crate::kernels::cpu::quant::{GROUP, LANES};

/// See [`add_span`](super::add_span).
pub(super) fn add_span(sums: &mut [[f32; LANES]], x: &Activations, from: usize, index: usize, span: &Span) {
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the level of the caller says that the processor has AVX2 and FMA.
        unsafe { add_row(sums, x, from + i, index, span) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn add_row(sums: &mut [f32; LANES], x: &Activations, row: usize, index: usize, span: &Span) {
    let (codes, groups) = (x.codes(row, index), x.groups(row, index));
    for half in 0..2 {
        let lanes = half * 8;
        // SAFETY: 8 of 16 sums.
        let mut sum = unsafe { _mm256_loadu_ps(sums[lanes..].as_ptr()) };
        for group in 0..span.head.groups * GROUP / span.head.group {
            let columns = group * span.head.group..(group + 1) * span.head.group;
            let of_x = &groups[columns.start / GROUP];
            let dots = dots(&codes[columns.clone()], span, columns.start / QUAD, half);
            // SAFETY: 8 of 16 scales, and of 16 minima.
            let scale = unsafe { _mm256_loadu_ps(span.head.scales[group][lanes..].as_ptr()) };
            let scale = _mm256_mul_ps(scale, _mm256_set1_ps(of_x.scale));
            sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, sum);
            if span.head.with_mins {
                // SAFETY: as above.
                let min = unsafe { _mm256_loadu_ps(span.head.mins[group][lanes..].as_ptr()) };
                sum = _mm256_fnmadd_ps(min, _mm256_set1_ps(of_x.total), sum);
            }
        }
        // SAFETY: 8 of 16 sums.
        unsafe { _mm256_storeu_ps(sums[lanes..].as_mut_ptr(), sum) }
    }
}

/// The products of codes of one row with those of 8 rows of the weight, from the quad `first` on.
#[target_feature(enable = "avx2")]
fn dots(codes: &[i8], span: &Span, first: usize, half: usize) -> __m256i {
    let mut dots = _mm256_setzero_si256();
    let ones = _mm256_set1_epi16(1);
    for (codes, line) in codes.chunks_exact(QUAD).zip(&span.codes[first..]) {
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
