//! Unpacking of a super-block of a panel to int8 codes and f32 scales: `w = scale * code - min`.

use super::panel::{K_HEADER, K_MINS, K_SCALES, LINE, Q6_K_HEADER};
use super::{PANEL_ROWS, QK_K};
use crate::dtype::WeightDtype;
use crate::kernels::cpu::dequantize::f16_to_f32;
use crate::kernels::cpu::dispatch::for_each_level;
#[cfg(target_arch = "x86_64")]
use crate::kernels::cpu::dispatch::{Level, level};

/// Columns of a quad, the codes of one 32-bit lane.
pub(super) const QUAD: usize = 4;

/// Unpacked super-block: 16 rows of 256 columns.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct SuperBlock {
    /// Codes `[quad][row][4 columns]`.
    pub(super) codes: [[i8; LINE]; QK_K / QUAD],
    pub(super) header: SuperBlockHeader,
}

/// Scales and minima of a super-block.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct SuperBlockHeader {
    /// Scales `[group][row]`: 16 groups where `group_len` is 16, else 8.
    pub(super) scales: [[f32; PANEL_ROWS]; 16],
    /// Minima `[group of 32][row]`, unused without `has_mins`.
    pub(super) mins: [[f32; PANEL_ROWS]; 8],
    /// Whether the dtype has minima.
    pub(super) has_mins: bool,
    /// Columns of a group, which share a scale: 16 or 32.
    pub(super) group_len: usize,
    /// Groups of 32 columns, at most 8.
    pub(super) groups: usize,
}

impl SuperBlock {
    pub(super) const ZERO: Self = Self { codes: [[0; LINE]; QK_K / QUAD], header: SuperBlockHeader::ZERO };
}

impl SuperBlockHeader {
    pub(super) const ZERO: Self = Self {
        scales: [[0.0; PANEL_ROWS]; 16],
        mins: [[0.0; PANEL_ROWS]; 8],
        has_mins: false,
        group_len: 32,
        groups: 0,
    };
}

/// Bytes of a super-block in a panel.
pub(super) fn super_block_bytes(dtype: WeightDtype) -> usize {
    PANEL_ROWS * QK_K / dtype.block_len() * dtype.block_bytes()
}

/// Unpacks the bytes of one super-block of a panel.
pub(super) fn unpack(dtype: WeightDtype, bytes: &[u8], block: &mut SuperBlock) {
    let codes = unpack_header(dtype, bytes, &mut block.header);
    match dtype {
        WeightDtype::Q8_0 => q8_0(codes, block),
        WeightDtype::Q4_0 => q4_0(codes, block),
        WeightDtype::Q4K => q4_k(codes, block),
        WeightDtype::Q5K => q5_k(codes, block),
        WeightDtype::Q6K => q6_k(codes, block),
        other => unreachable!("{other} has no int8 kernel"),
    }
}

/// Unpacks the header of a super-block; returns the bytes of its codes.
fn unpack_header<'a>(dtype: WeightDtype, bytes: &'a [u8], header: &mut SuperBlockHeader) -> &'a [u8] {
    header.groups = bytes.len() / (PANEL_ROWS * dtype.block_bytes()) * (dtype.block_len() / 32);
    header.has_mins = matches!(dtype, WeightDtype::Q4K | WeightDtype::Q5K);
    header.group_len = if dtype == WeightDtype::Q6K { 16 } else { 32 };
    let len = match dtype {
        WeightDtype::Q4K | WeightDtype::Q5K => K_HEADER,
        WeightDtype::Q6K => Q6_K_HEADER,
        _ => 2 * PANEL_ROWS * header.groups,
    };
    let (bytes, codes) = bytes.split_at(len);
    match dtype {
        WeightDtype::Q4K | WeightDtype::Q5K => k_scales(bytes, header),
        WeightDtype::Q6K => q6_k_scales(bytes, header),
        _ => f16_rows_to_f32(bytes, &mut header.scales),
    }
    codes
}

/// Converts rows of 16 f16.
fn f16_rows_to_f32(bytes: &[u8], values: &mut [[f32; PANEL_ROWS]]) {
    let rows = bytes.as_chunks::<{ 2 * PANEL_ROWS }>().0;
    // the compiler would turn the plain loop into branches for each value
    #[cfg(target_arch = "x86_64")]
    if level() >= Level::Avx512 {
        #[expect(unsafe_code, reason = "the call needs the features that `level` has found")]
        // SAFETY: `level` returns `Avx512` or more only where AVX-512 F was detected.
        unsafe {
            f16_rows_to_f32_avx512(rows, values);
        }
        return;
    }
    for (values, row) in values.iter_mut().zip(rows) {
        for (value, bytes) in values.iter_mut().zip(row.as_chunks().0) {
            *value = f16_to_f32(u16::from_le_bytes(*bytes));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn f16_rows_to_f32_avx512(rows: &[[u8; 2 * PANEL_ROWS]], values: &mut [[f32; PANEL_ROWS]]) {
    use std::arch::x86_64::*;
    for (values, row) in values.iter_mut().zip(rows) {
        #[expect(unsafe_code, reason = "vector loads and stores")]
        // SAFETY: 32 bytes are read and 64 written, at any alignment.
        unsafe {
            let f16 = _mm256_loadu_si256(row.as_ptr().cast());
            _mm512_storeu_ps(values.as_mut_ptr(), _mm512_cvtph_ps(f16));
        }
    }
}

/// Line `index` of codes.
#[inline(always)]
fn line(bytes: &[u8], index: usize) -> &[u8; LINE] {
    bytes[index * LINE..(index + 1) * LINE].as_array().expect("64 bytes")
}

/// Writes the 8 quads of each group of 32 columns from its 4 lines of nibbles.
#[inline(always)]
fn unpack_nibbles(bytes: &[u8], codes: &mut [[i8; LINE]]) {
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

/// 6-bit numbers of four groups, `[group][row]`, from three lines of 16 bytes.
#[inline(always)]
fn unpack_six_bits(lines: &[u8]) -> [[u8; PANEL_ROWS]; 4] {
    let (a, b, c) =
        (&lines[..PANEL_ROWS], &lines[PANEL_ROWS..2 * PANEL_ROWS], &lines[2 * PANEL_ROWS..3 * PANEL_ROWS]);
    let mut numbers = [[0; PANEL_ROWS]; 4];
    for i in 0..PANEL_ROWS {
        (numbers[0][i], numbers[1][i], numbers[2][i]) = (a[i] & 63, b[i] & 63, c[i] & 63);
        numbers[3][i] = (a[i] >> 6) | (b[i] >> 6) << 2 | (c[i] >> 6) << 4;
    }
    numbers
}

for_each_level! {
    /// Scales and minima of `Q4_K` and `Q5_K`.
    fn k_scales(bytes: &[u8], header: &mut SuperBlockHeader) {
        let mut d_rows = [[0f32; PANEL_ROWS]; 2];
        f16_rows_to_f32(&bytes[..64], &mut d_rows);
        let [d, d_min] = d_rows;
        for four in 0..2 {
            let scales = unpack_six_bits(&bytes[K_SCALES + four * 48..]);
            let mins = unpack_six_bits(&bytes[K_MINS + four * 48..]);
            for i in 0..4 {
                for lane in 0..PANEL_ROWS {
                    header.scales[four * 4 + i][lane] = d[lane] * f32::from(scales[i][lane]);
                    header.mins[four * 4 + i][lane] = d_min[lane] * f32::from(mins[i][lane]);
                }
            }
        }
    }

    fn q6_k_scales(bytes: &[u8], header: &mut SuperBlockHeader) {
        let mut d_rows = [[0f32; PANEL_ROWS]; 1];
        f16_rows_to_f32(&bytes[..32], &mut d_rows);
        let [d] = d_rows;
        for group in 0..16 {
            for lane in 0..PANEL_ROWS {
                header.scales[group][lane] = d[lane] * f32::from(bytes[32 + group * PANEL_ROWS + lane] as i8);
            }
        }
    }

    fn q8_0(codes: &[u8], block: &mut SuperBlock) {
        for (to, from) in block.codes.as_flattened_mut().iter_mut().zip(codes) {
            *to = *from as i8;
        }
    }

    fn q4_0(codes: &[u8], block: &mut SuperBlock) {
        let quads = &mut block.codes[..block.header.groups * 8];
        unpack_nibbles(codes, quads);
        for quad in quads {
            for code in quad {
                *code -= 8;
            }
        }
    }

    fn q4_k(codes: &[u8], block: &mut SuperBlock) {
        unpack_nibbles(codes, &mut block.codes);
    }

    fn q5_k(codes: &[u8], block: &mut SuperBlock) {
        unpack_nibbles(codes, &mut block.codes);
        for (index, quad) in block.codes.iter_mut().enumerate() {
            let (fifth, mask) = (line(codes, 32 + index / 8), 1u8 << (index % 8));
            for i in 0..LINE {
                quad[i] += if fifth[i] & mask == 0 { 0 } else { 16 };
            }
        }
    }

    fn q6_k(codes: &[u8], block: &mut SuperBlock) {
        unpack_nibbles(codes, &mut block.codes);
        for (index, quad) in block.codes.iter_mut().enumerate() {
            let (high, mask) = (line(codes, 32 + index / 4), 1u8 << (2 * (index % 4)));
            for i in 0..LINE {
                quad[i] += if high[i] & mask == 0 { -32 } else { -16 };
                quad[i] += if high[i] & (mask << 1) == 0 { 0 } else { 32 };
            }
        }
    }
}
