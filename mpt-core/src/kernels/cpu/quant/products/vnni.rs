//! Products with AVX-512 VNNI: four unsigned times four signed bytes a lane.

#![expect(unsafe_code, reason = "vector instructions")]

use std::arch::x86_64::*;

use crate::kernels::cpu::quant::activations::Activations;
use crate::kernels::cpu::quant::unpack::{QUAD, Span};
use crate::kernels::cpu::quant::{GROUP, LANES};

/// See [`add_span`](super::add_span).
pub(super) fn add_span(sums: &mut [[f32; LANES]], x: &Activations, from: usize, index: usize, span: &Span) {
    // SAFETY: the level of the caller says that the processor has AVX-512 F, BW and VNNI.
    unsafe {
        match (span.head.group, span.head.with_mins) {
            (16, _) => add::<4, false>(sums, x, from, index, span),
            (_, true) => add::<8, true>(sums, x, from, index, span),
            (_, false) => add::<8, false>(sums, x, from, index, span),
        }
    }
}

/// `QUADS` quads share a scale.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add<const QUADS: usize, const MINS: bool>(
    sums: &mut [[f32; LANES]],
    x: &Activations,
    from: usize,
    index: usize,
    span: &Span,
) {
    let mut first = 0;
    while first < sums.len() {
        let (sums, row) = (&mut sums[first..], from + first);
        first += match sums.len() {
            8.. => rows::<8, QUADS, MINS>(sums, x, row, index, span),
            4.. => rows::<4, QUADS, MINS>(sums, x, row, index, span),
            2.. => rows::<2, QUADS, MINS>(sums, x, row, index, span),
            _ => rows::<1, QUADS, MINS>(sums, x, row, index, span),
        };
    }
}

/// R rows at once, which share the loads of codes and scales; returns R.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn rows<const R: usize, const QUADS: usize, const MINS: bool>(
    sums: &mut [[f32; LANES]],
    x: &Activations,
    row: usize,
    index: usize,
    span: &Span,
) -> usize {
    let groups: [_; R] = std::array::from_fn(|r| x.groups(row + r, index));
    let codes: [_; R] = std::array::from_fn(|r| &x.codes(row + r, index)[..span.head.groups * GROUP]);
    let offset = _mm512_set1_epi8(-128);
    let mut totals = [_mm512_setzero_ps(); R];
    for r in 0..R {
        // SAFETY: a row of sums is 64 bytes.
        totals[r] = unsafe { _mm512_loadu_ps(sums[r].as_ptr()) };
    }
    for group in 0..span.head.groups * (GROUP / QUAD) / QUADS {
        let of_x = group * QUADS * QUAD / GROUP;
        // weights become unsigned by adding 128: each code of x takes 128 times itself off
        let mut dots: [__m512i; R] = std::array::from_fn(|r| {
            let sums = groups[r][of_x].sums;
            let sum = if QUADS == 4 { sums[group % 2] } else { sums[0] + sums[1] };
            _mm512_set1_epi32(-128 * sum)
        });
        for quad in group * QUADS..(group + 1) * QUADS {
            // SAFETY: a line is 64 bytes on a boundary of 64.
            let weights = unsafe { _mm512_load_si512(span.codes[quad].as_ptr().cast()) };
            let weights = _mm512_xor_si512(weights, offset);
            for r in 0..R {
                // SAFETY: `codes` holds `groups * 32` codes, four for each of the quads.
                let quad = unsafe { codes[r].as_ptr().add(quad * QUAD).cast::<i32>().read_unaligned() };
                dots[r] = _mm512_dpbusd_epi32(dots[r], weights, _mm512_set1_epi32(quad));
            }
        }
        // SAFETY: rows of scales and minima are 64 bytes.
        let scale = unsafe { _mm512_loadu_ps(span.head.scales[group].as_ptr()) };
        for r in 0..R {
            let x = groups[r][of_x];
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(x.scale));
            totals[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), scale, totals[r]);
            if MINS {
                // SAFETY: as above.
                let min = unsafe { _mm512_loadu_ps(span.head.mins[group].as_ptr()) };
                totals[r] = _mm512_fnmadd_ps(min, _mm512_set1_ps(x.total), totals[r]);
            }
        }
    }
    for r in 0..R {
        // SAFETY: a row of sums is 64 bytes.
        unsafe { _mm512_storeu_ps(sums[r].as_mut_ptr(), totals[r]) }
    }
    R
}
