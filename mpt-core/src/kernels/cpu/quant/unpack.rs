//! 256 columns of a panel as 8-bit codes and f32 scales: `w = scale * code - min`.

use super::panel::{K_HEAD, K_MINS, K_SCALES, LINE, Q6_K_HEAD};
use super::{LANES, SPAN};
use crate::dtype::WeightDtype;
use crate::kernels::cpu::dispatch::for_each_level;
#[cfg(target_arch = "x86_64")]
use crate::kernels::cpu::dispatch::{Level, level};
use crate::kernels::cpu::widen::f16;

/// Columns of a quad, which a lane of a vector holds.
pub(super) const QUAD: usize = 4;

/// 16 rows of 256 columns.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct Span {
    /// `[quad][row][4 columns]`.
    pub(super) codes: [[i8; LINE]; SPAN / QUAD],
    pub(super) head: Head,
}

/// What turns codes of a span into values.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct Head {
    /// `[group][row]`, with 16 groups where `group` is 16, else 8.
    pub(super) scales: [[f32; LANES]; 16],
    /// `[group of 32][row]`, not used where `with_mins` is not set.
    pub(super) mins: [[f32; LANES]; 8],
    pub(super) with_mins: bool,
    /// Columns that share a scale: 16 or 32.
    pub(super) group: usize,
    /// Groups of 32 columns that exist, at most 8.
    pub(super) groups: usize,
}

impl Span {
    pub(super) const ZERO: Self = Self { codes: [[0; LINE]; SPAN / QUAD], head: Head::ZERO };
}

impl Head {
    pub(super) const ZERO: Self =
        Self { scales: [[0.0; LANES]; 16], mins: [[0.0; LANES]; 8], with_mins: false, group: 32, groups: 0 };
}

/// Bytes of a span of 256 columns in a panel.
pub(super) fn span_bytes(format: WeightDtype) -> usize {
    LANES * SPAN / format.block_len() * format.block_bytes()
}

/// Unpacks the bytes of one span of a panel.
pub(super) fn unpack(format: WeightDtype, bytes: &[u8], span: &mut Span) {
    let codes = unpack_head(format, bytes, &mut span.head);
    match format {
        WeightDtype::Q8_0 => q8_0(codes, span),
        WeightDtype::Q4_0 => q4_0(codes, span),
        WeightDtype::Q4K => q4_k(codes, span),
        WeightDtype::Q5K => q5_k(codes, span),
        WeightDtype::Q6K => q6_k(codes, span),
        other => unreachable!("{other} is not multiplied in integers"),
    }
}

/// Unpacks all of a span but its codes; returns their bytes.
fn unpack_head<'a>(format: WeightDtype, bytes: &'a [u8], head: &mut Head) -> &'a [u8] {
    head.groups = bytes.len() / (LANES * format.block_bytes()) * (format.block_len() / 32);
    head.with_mins = matches!(format, WeightDtype::Q4K | WeightDtype::Q5K);
    head.group = if format == WeightDtype::Q6K { 16 } else { 32 };
    let len = match format {
        WeightDtype::Q4K | WeightDtype::Q5K => K_HEAD,
        WeightDtype::Q6K => Q6_K_HEAD,
        _ => 2 * LANES * head.groups,
    };
    let (bytes, codes) = bytes.split_at(len);
    match format {
        WeightDtype::Q4K | WeightDtype::Q5K => k_scales(bytes, head),
        WeightDtype::Q6K => q6_k_scales(bytes, head),
        _ => widen_halves(bytes, &mut head.scales),
    }
    codes
}

/// Rows of 16 halves.
fn widen_halves(bytes: &[u8], values: &mut [[f32; LANES]]) {
    let rows = bytes.as_chunks::<{ 2 * LANES }>().0;
    // the compiler would turn the plain loop into branches for each value
    #[cfg(target_arch = "x86_64")]
    if level() >= Level::Avx512 {
        #[expect(unsafe_code, reason = "the call needs the features that `level` has found")]
        // SAFETY: `level` returns `Avx512` or more only where AVX-512 F was detected.
        unsafe {
            widen_halves_avx512(rows, values);
        }
        return;
    }
    for (values, row) in values.iter_mut().zip(rows) {
        for (value, bytes) in values.iter_mut().zip(row.as_chunks().0) {
            *value = f16(u16::from_le_bytes(*bytes));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn widen_halves_avx512(rows: &[[u8; 2 * LANES]], values: &mut [[f32; LANES]]) {
    use std::arch::x86_64::*;
    for (values, row) in values.iter_mut().zip(rows) {
        #[expect(unsafe_code, reason = "vector loads and stores")]
        // SAFETY: 32 bytes are read and 64 written, at any alignment.
        unsafe {
            let halves = _mm256_loadu_si256(row.as_ptr().cast());
            _mm512_storeu_ps(values.as_mut_ptr(), _mm512_cvtph_ps(halves));
        }
    }
}

#[inline(always)]
fn line(bytes: &[u8], index: usize) -> &[u8; LINE] {
    bytes[index * LINE..(index + 1) * LINE].as_array().expect("64 bytes")
}

/// Writes the 8 quads of each group of 32 columns from its 4 lines of nibbles.
#[inline(always)]
fn nibbles(bytes: &[u8], codes: &mut [[i8; LINE]]) {
    for (group, quads) in codes.chunks_exact_mut(8).enumerate() {
        let (low, high) = quads.split_at_mut(4);
        for (index, (low, high)) in low.iter_mut().zip(high).enumerate() {
            let line = line(bytes, group * 4 + index);
            for i in 0..LINE {
                low[i] = (line[i] & 0xf) as i8;
                high[i] = (line[i] >> 4) as i8;
            }
        }
    }
}

/// Four groups' 6-bit numbers from three lines of 16 bytes.
#[inline(always)]
fn six_bits(lines: &[u8]) -> [[u8; LANES]; 4] {
    let (a, b, c) = (&lines[..LANES], &lines[LANES..2 * LANES], &lines[2 * LANES..3 * LANES]);
    let mut numbers = [[0; LANES]; 4];
    for i in 0..LANES {
        (numbers[0][i], numbers[1][i], numbers[2][i]) = (a[i] & 63, b[i] & 63, c[i] & 63);
        numbers[3][i] = (a[i] >> 6) | (b[i] >> 6) << 2 | (c[i] >> 6) << 4;
    }
    numbers
}

for_each_level! {
    /// Scales and minima of `Q4_K` and `Q5_K`.
    fn k_scales(bytes: &[u8], head: &mut Head) {
        let mut halves = [[0f32; LANES]; 2];
        widen_halves(&bytes[..64], &mut halves);
        let [d, d_min] = halves;
        for four in 0..2 {
            let scales = six_bits(&bytes[K_SCALES + four * 48..]);
            let mins = six_bits(&bytes[K_MINS + four * 48..]);
            for i in 0..4 {
                for lane in 0..LANES {
                    head.scales[four * 4 + i][lane] = d[lane] * f32::from(scales[i][lane]);
                    head.mins[four * 4 + i][lane] = d_min[lane] * f32::from(mins[i][lane]);
                }
            }
        }
    }

    fn q6_k_scales(bytes: &[u8], head: &mut Head) {
        let mut halves = [[0f32; LANES]; 1];
        widen_halves(&bytes[..32], &mut halves);
        let [d] = halves;
        for group in 0..16 {
            for lane in 0..LANES {
                head.scales[group][lane] = d[lane] * f32::from(bytes[32 + group * LANES + lane] as i8);
            }
        }
    }

    fn q8_0(codes: &[u8], span: &mut Span) {
        for (to, from) in span.codes.as_flattened_mut().iter_mut().zip(codes) {
            *to = *from as i8;
        }
    }

    fn q4_0(codes: &[u8], span: &mut Span) {
        let quads = &mut span.codes[..span.head.groups * 8];
        nibbles(codes, quads);
        for quad in quads {
            for code in quad {
                *code -= 8;
            }
        }
    }

    fn q4_k(codes: &[u8], span: &mut Span) {
        nibbles(codes, &mut span.codes);
    }

    fn q5_k(codes: &[u8], span: &mut Span) {
        nibbles(codes, &mut span.codes);
        for (index, quad) in span.codes.iter_mut().enumerate() {
            let (fifth, mask) = (line(codes, 32 + index / 8), 1u8 << (index % 8));
            for i in 0..LINE {
                quad[i] += if fifth[i] & mask == 0 { 0 } else { 16 };
            }
        }
    }

    fn q6_k(codes: &[u8], span: &mut Span) {
        nibbles(codes, &mut span.codes);
        for (index, quad) in span.codes.iter_mut().enumerate() {
            let (high, mask) = (line(codes, 32 + index / 4), 1u8 << (2 * (index % 4)));
            for i in 0..LINE {
                quad[i] += if high[i] & mask == 0 { -32 } else { -16 };
                quad[i] += if high[i] & (mask << 1) == 0 { 0 } else { 32 };
            }
        }
    }
}
