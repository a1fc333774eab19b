//! Products of a few rows with AVX-512 VNNI, codes taken from the panel as they come from memory.
//!
//! With one row to multiply, as in generation, memory is the limit. Codes that are unpacked into a buffer first make the
//! processor compute and wait in turn; here each line is multiplied where it was loaded, and asks for one further on.

#![expect(unsafe_code, reason = "vector instructions")]

mod forms;

use std::arch::x86_64::*;

use forms::{Form, Line, Q4_0, Q4K, Q5K, Q6K, Q8_0};

use crate::dtype::WeightDtype;
use crate::kernels::cpu::quant::activations::{Activations, Group};
use crate::kernels::cpu::quant::panel::LINE;
use crate::kernels::cpu::quant::unpack::QUAD;
use crate::kernels::cpu::quant::{GROUP, LANES, SPAN};

/// Rows up to which this is faster than to unpack codes once for all rows.
pub(super) const ROWS: usize = 4;

/// Bytes from a line to the one that is asked for: what arrives while a line comes from memory.
const AHEAD: usize = 1024;

/// As [`add_span`](super::add_span), for the bytes of a span.
pub(super) fn add_span(
    sums: &mut [[f32; LANES]],
    x: &Activations,
    from: usize,
    index: usize,
    format: WeightDtype,
    bytes: &[u8],
) {
    let x = Rows { x, from, index };
    // SAFETY: the level of the caller says that the processor has AVX-512 F, BW and VNNI.
    unsafe {
        match format {
            WeightDtype::Q8_0 => add::<Q8_0>(sums, &x, bytes),
            WeightDtype::Q4_0 => add::<Q4_0>(sums, &x, bytes),
            WeightDtype::Q4K => add::<Q4K>(sums, &x, bytes),
            WeightDtype::Q5K => add::<Q5K>(sums, &x, bytes),
            WeightDtype::Q6K => add::<Q6K>(sums, &x, bytes),
            other => unreachable!("{other} is not multiplied in integers"),
        }
    }
}

/// One span of the rows from `from` on.
struct Rows<'a> {
    x: &'a Activations,
    from: usize,
    index: usize,
}

impl Rows<'_> {
    fn codes(&self, row: usize) -> &[i8] {
        &self.x.codes(self.from + row, self.index)[..SPAN]
    }

    fn groups(&self, row: usize) -> &[Group; SPAN / GROUP] {
        self.x.groups(self.from + row, self.index)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add<F: Form>(sums: &mut [[f32; LANES]], x: &Rows<'_>, bytes: &[u8]) {
    match sums.len() {
        0 => {}
        1 => rows::<1, F>(sums, x, bytes),
        2 => rows::<2, F>(sums, x, bytes),
        3 => rows::<3, F>(sums, x, bytes),
        _ => rows::<ROWS, F>(sums, x, bytes),
    }
}

/// R rows at once, which share the loads of codes and scales.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn rows<const R: usize, F: Form>(sums: &mut [[f32; LANES]], x: &Rows<'_>, bytes: &[u8]) {
    assert_eq!(sums.len(), R, "more rows than are taken at once");
    let groups = bytes.len() / (LANES * F::FORMAT.block_bytes()) * (F::FORMAT.block_len() / GROUP);
    let (head, codes) = bytes.split_at(F::head_bytes(groups));
    let codes = codes.as_chunks::<LINE>().0;
    assert_eq!(codes.len(), groups * (F::LINES + F::MORE), "lines of a span");
    let mut totals = [_mm512_setzero_ps(); R];
    for r in 0..R {
        // SAFETY: a row of sums is 64 bytes.
        totals[r] = unsafe { _mm512_loadu_ps(sums[r].as_ptr()) };
    }
    let (lines, more) = codes.split_at(groups * F::LINES);
    // SAFETY: the head of a span is at `head`.
    let factors = unsafe { F::factors(head.as_ptr()) };
    let x_groups: [_; R] = std::array::from_fn(|r| x.groups(r));
    let x_codes: [_; R] = std::array::from_fn(|r| x.codes(r).as_ptr());
    for group in 0..groups {
        ask_for(&codes[group * (F::LINES + F::MORE)..][..F::LINES + F::MORE]);
        let x_groups: [_; R] = std::array::from_fn(|r| &x_groups[r][group]);
        // SAFETY: the processor has what is needed; every group has its lines, and a row of x 256 codes.
        unsafe {
            let (lines, more) = (lines.as_ptr().add(group * F::LINES), more.as_ptr().add(group * F::MORE));
            let dots = dots::<R, F>(lines, more, x_codes.map(|x| x.add(group * GROUP)), x_groups);
            let scales = F::scales(head.as_ptr(), factors, group);
            for r in 0..R {
                totals[r] = add_scaled::<F>(totals[r], dots[r], x_groups[r], scales);
            }
        }
    }
    for r in 0..R {
        // SAFETY: a row of sums is 64 bytes.
        unsafe { _mm512_storeu_ps(sums[r].as_mut_ptr(), totals[r]) }
    }
}

/// Sums of products of the first and of the last 16 columns of a group, for the R rows of which the group's codes are at `x`;
/// where they share a scale, only their sum has a meaning.
///
/// # Safety
/// The processor has the features; there are the lines of [`Form::quads`] and 32 codes at each `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dots<const R: usize, F: Form>(
    lines: *const Line,
    more: *const Line,
    x: [*const i8; R],
    groups: [&Group; R],
) -> [[__m512i; 2]; R] {
    let mut dots = [[_mm512_setzero_si512(); 2]; R];
    if F::OFFSET != 0 {
        for r in 0..R {
            let [first, last] = groups[r].sums.map(|sum| -F::OFFSET * sum);
            if F::HALVES {
                dots[r] = [_mm512_set1_epi32(first), _mm512_set1_epi32(last)];
            } else {
                dots[r][0] = _mm512_set1_epi32(first + last);
            }
        }
    }
    for index in 0..GROUP / QUAD / 2 {
        // SAFETY: the caller's.
        unsafe {
            let quads = F::quads(lines, more, index);
            for r in 0..R {
                let of_group = x[r].cast::<i32>().add(index);
                for half in 0..2 {
                    let of_x = of_group.add(half * GROUP / QUAD / 2).read_unaligned();
                    dots[r][half] = _mm512_dpbusd_epi32(dots[r][half], quads[half], _mm512_set1_epi32(of_x));
                }
            }
        }
    }
    dots
}

/// `total` and the scaled sums of one group, in the order of [`add_span`](super::add_span).
#[inline]
#[target_feature(enable = "avx512f")]
fn add_scaled<F: Form>(mut total: __m512, dots: [__m512i; 2], x: &Group, scales: [__m512; 2]) -> __m512 {
    let x_scale = _mm512_set1_ps(x.scale);
    if F::HALVES {
        for half in 0..2 {
            let scale = _mm512_mul_ps(scales[half], x_scale);
            total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[half]), scale, total);
        }
        return total;
    }
    let dots = _mm512_cvtepi32_ps(_mm512_add_epi32(dots[0], dots[1]));
    total = _mm512_fmadd_ps(dots, _mm512_mul_ps(scales[0], x_scale), total);
    if F::MINS { _mm512_fnmadd_ps(scales[1], _mm512_set1_ps(x.total), total) } else { total }
}

/// Asks for bytes a little after these.
#[inline]
#[target_feature(enable = "avx512f")]
fn ask_for(lines: &[Line]) {
    for line in lines {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(AHEAD).cast());
    }
}
