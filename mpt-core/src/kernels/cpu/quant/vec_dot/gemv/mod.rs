//! Int8 GEMV with AVX-512 VNNI: up to four rows of activations, with codes taken from the panel as they come from memory.
//!
//! With one row, as in decoding, memory bandwidth is the limit. Unpacking codes to a buffer first would make the processor compute
//! and wait in turn; here each line is multiplied where it is loaded, and prefetches a later one.

#![expect(unsafe_code, reason = "vector instructions")]

mod dtypes;

use std::arch::x86_64::*;

use dtypes::{Line, PanelDtype, Q4_0, Q4K, Q5K, Q6K, Q8_0};

use crate::dtype::WeightDtype;
use crate::kernels::cpu::quant::activations::{ActivationGroup, Int8Activations};
use crate::kernels::cpu::quant::panel::LINE;
use crate::kernels::cpu::quant::unpack::QUAD;
use crate::kernels::cpu::quant::{GROUP, PANEL_ROWS, QK_K};

/// Rows up to which this kernel is faster than unpacking codes once for all rows.
pub(super) const MAX_ROWS: usize = 4;

/// Bytes from a line to the one it prefetches: the bandwidth times the latency of memory.
const PREFETCH_BYTES: usize = 1024;

/// As [`add_super_block`](super::add_super_block), for the packed bytes of a super-block.
pub(super) fn add_super_block(
    acc: &mut [[f32; PANEL_ROWS]],
    x: &Int8Activations,
    from: usize,
    index: usize,
    dtype: WeightDtype,
    bytes: &[u8],
) {
    let x = XBlock { x, from, index };
    // SAFETY: the level of the caller says that the processor has AVX-512 F, BW and VNNI.
    unsafe {
        match dtype {
            WeightDtype::Q8_0 => add_dtype::<Q8_0>(acc, &x, bytes),
            WeightDtype::Q4_0 => add_dtype::<Q4_0>(acc, &x, bytes),
            WeightDtype::Q4K => add_dtype::<Q4K>(acc, &x, bytes),
            WeightDtype::Q5K => add_dtype::<Q5K>(acc, &x, bytes),
            WeightDtype::Q6K => add_dtype::<Q6K>(acc, &x, bytes),
            other => unreachable!("{other} has no int8 kernel"),
        }
    }
}

/// Super-block `index` of the rows of `x` from `from` on.
struct XBlock<'a> {
    x: &'a Int8Activations,
    from: usize,
    index: usize,
}

impl XBlock<'_> {
    fn codes(&self, row: usize) -> &[i8] {
        &self.x.codes(self.from + row, self.index)[..QK_K]
    }

    fn groups(&self, row: usize) -> &[ActivationGroup; QK_K / GROUP] {
        self.x.groups(self.from + row, self.index)
    }
}

/// [`add_super_block`] for one dtype.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_dtype<D: PanelDtype>(acc: &mut [[f32; PANEL_ROWS]], x: &XBlock<'_>, bytes: &[u8]) {
    match acc.len() {
        0 => {}
        1 => add_rows::<1, D>(acc, x, bytes),
        2 => add_rows::<2, D>(acc, x, bytes),
        3 => add_rows::<3, D>(acc, x, bytes),
        _ => add_rows::<MAX_ROWS, D>(acc, x, bytes),
    }
}

/// R rows at once, which share the loads of codes and scales.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_rows<const R: usize, D: PanelDtype>(acc: &mut [[f32; PANEL_ROWS]], x: &XBlock<'_>, bytes: &[u8]) {
    assert_eq!(acc.len(), R, "one row of accumulators for each row of x");
    let groups = bytes.len() / (PANEL_ROWS * D::DTYPE.block_bytes()) * (D::DTYPE.block_len() / GROUP);
    let (header, codes) = bytes.split_at(D::header_bytes(groups));
    let codes = codes.as_chunks::<LINE>().0;
    assert_eq!(codes.len(), groups * (D::CODE_LINES + D::HIGH_BIT_LINES), "lines of a super-block");
    let mut regs = [_mm512_setzero_ps(); R];
    for r in 0..R {
        // SAFETY: a row of accumulators is 64 bytes.
        regs[r] = unsafe { _mm512_loadu_ps(acc[r].as_ptr()) };
    }
    let (lines, high_bits) = codes.split_at(groups * D::CODE_LINES);
    // SAFETY: the header of a super-block is at `header`.
    let factors = unsafe { D::factors(header.as_ptr()) };
    let x_groups: [_; R] = std::array::from_fn(|r| x.groups(r));
    let x_codes: [_; R] = std::array::from_fn(|r| x.codes(r).as_ptr());
    for group in 0..groups {
        prefetch(&codes[group * (D::CODE_LINES + D::HIGH_BIT_LINES)..][..D::CODE_LINES + D::HIGH_BIT_LINES]);
        let x_groups: [_; R] = std::array::from_fn(|r| &x_groups[r][group]);
        // SAFETY: the processor has the features; every group has its lines, and a row of x 256 codes.
        unsafe {
            let (lines, high_bits) = (
                lines.as_ptr().add(group * D::CODE_LINES),
                high_bits.as_ptr().add(group * D::HIGH_BIT_LINES),
            );
            let dots = dots::<R, D>(lines, high_bits, x_codes.map(|x| x.add(group * GROUP)), x_groups);
            let scales = D::scales(header.as_ptr(), factors, group);
            for r in 0..R {
                regs[r] = add_scaled::<D>(regs[r], dots[r], x_groups[r], scales);
            }
        }
    }
    for r in 0..R {
        // SAFETY: a row of accumulators is 64 bytes.
        unsafe { _mm512_storeu_ps(acc[r].as_mut_ptr(), regs[r]) }
    }
}

/// Dot products of the first and of the last 16 columns of a group with R rows, whose codes are at `x`.
///
/// Only the sum of both has a meaning for dtypes with one scale a group.
///
/// # Safety
/// The processor has the features; there are the lines of [`PanelDtype::quads`] and 32 codes at each `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dots<const R: usize, D: PanelDtype>(
    lines: *const Line,
    high_bits: *const Line,
    x: [*const i8; R],
    groups: [&ActivationGroup; R],
) -> [[__m512i; 2]; R] {
    let mut dots = [[_mm512_setzero_si512(); 2]; R];
    if D::OFFSET != 0 {
        for r in 0..R {
            let [first, last] = groups[r].code_sums.map(|sum| -D::OFFSET * sum);
            if D::HALF_GROUP_SCALES {
                dots[r] = [_mm512_set1_epi32(first), _mm512_set1_epi32(last)];
            } else {
                dots[r][0] = _mm512_set1_epi32(first + last);
            }
        }
    }
    for index in 0..GROUP / QUAD / 2 {
        // SAFETY: as the caller promises.
        unsafe {
            let quads = D::quads(lines, high_bits, index);
            for r in 0..R {
                let codes = x[r].cast::<i32>().add(index);
                for half in 0..2 {
                    let quad = codes.add(half * GROUP / QUAD / 2).read_unaligned();
                    dots[r][half] = _mm512_dpbusd_epi32(dots[r][half], quads[half], _mm512_set1_epi32(quad));
                }
            }
        }
    }
    dots
}

/// `reg` plus the scaled dot products of one group, in the order of [`add_super_block`](super::add_super_block).
#[inline]
#[target_feature(enable = "avx512f")]
fn add_scaled<D: PanelDtype>(
    mut reg: __m512,
    dots: [__m512i; 2],
    x: &ActivationGroup,
    scales: [__m512; 2],
) -> __m512 {
    let x_scale = _mm512_set1_ps(x.scale);
    if D::HALF_GROUP_SCALES {
        for half in 0..2 {
            let scale = _mm512_mul_ps(scales[half], x_scale);
            reg = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[half]), scale, reg);
        }
        return reg;
    }
    let dots = _mm512_cvtepi32_ps(_mm512_add_epi32(dots[0], dots[1]));
    reg = _mm512_fmadd_ps(dots, _mm512_mul_ps(scales[0], x_scale), reg);
    if D::HAS_MINS { _mm512_fnmadd_ps(scales[1], _mm512_set1_ps(x.scaled_sum), reg) } else { reg }
}

/// Prefetches the lines [`PREFETCH_BYTES`] after these.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch(lines: &[Line]) {
    for line in lines {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(PREFETCH_BYTES).cast());
    }
}
