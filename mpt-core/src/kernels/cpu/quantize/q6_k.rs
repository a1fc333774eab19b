//! Q6_K: 256 values in 16 groups of 16, each with an 8-bit scale below one f16.

use super::{nearest_int, transpose_groups, write_f16};
use crate::kernels::cpu::dispatch::for_each_level;

/// Values of a group, and groups of a block.
const N: usize = 16;

/// One number a group.
type PerGroup = [f32; N];

/// Magnitude below which all values of a group count as zero.
const GROUP_MAX_EPS: f32 = 1e-15;

for_each_level! {
    /// Writes blocks of 210 bytes: low nibbles, high bits, scales, f16 scale of scales.
    pub(super) fn q6_k(values: &[f32], bytes: &mut [u8]) {
        for (values, block) in values.chunks_exact(256).zip(bytes.chunks_exact_mut(210)) {
            let x = transpose_groups::<N, N>(values);
            let (scales, codes) = fit(&x);
            let farthest = scales.iter().fold(0f32, |top, &x| if x.abs() > top.abs() { x } else { top });
            if farthest.abs() < GROUP_MAX_EPS {
                block.fill(0);
                continue;
            }
            let scales = write_scales(scales, farthest, block);
            write_codes(&round_codes(&x, scales, codes), block);
        }
    }
}

/// Writes the scales in 8 bits, relative to the one farthest from zero; returns the rounded scales.
#[inline(always)]
fn write_scales(scales: PerGroup, farthest: f32, block: &mut [u8]) -> PerGroup {
    let inverse = -128.0 / farthest;
    let bits = scales.map(|scale| nearest_int(inverse * scale).min(127) as i8);
    let scale = write_f16(1.0 / inverse, &mut block[208..]);
    for (byte, bits) in block[192..208].iter_mut().zip(bits) {
        *byte = bits as u8;
    }
    bits.map(|bits| scale * f32::from(bits))
}

/// Codes for the rounded scales; a group with a scale of zero keeps its codes.
#[inline(always)]
fn round_codes(x: &[PerGroup; N], scales: PerGroup, mut codes: [[u8; N]; N]) -> [[u8; N]; N] {
    for (codes, x) in codes.iter_mut().zip(x) {
        for g in 0..N {
            let code = 32 + nearest_int(x[g] / scales[g]).clamp(-32, 31);
            codes[g] = if scales[g] == 0.0 { codes[g] } else { code as u8 };
        }
    }
    codes
}

/// Writes, for each half of the block, 64 bytes of low nibbles of two quarters each and 32 bytes of high bits of all four.
#[inline(always)]
fn write_codes(codes: &[[u8; N]; N], block: &mut [u8]) {
    let at = |value: usize| codes[value % N][value / N];
    for half in 0..2 {
        for i in 0..32 {
            let [a, b, c, d] = [0, 32, 64, 96].map(|quarter| at(128 * half + quarter + i));
            block[64 * half + i] = a & 0xf | c << 4;
            block[64 * half + 32 + i] = b & 0xf | d << 4;
            block[128 + 32 * half + i] = a >> 4 | (b >> 4) << 2 | (c >> 4) << 4 | (d >> 4) << 6;
        }
    }
}

/// Scale and codes of each group, the best of 19 trials.
///
/// A trial maps the value farthest from zero to a code near -32; its scale is the least squares solution with squares as
/// weights.
#[inline(always)]
fn fit(x: &[PerGroup; N]) -> (PerGroup, [[u8; N]; N]) {
    let mut farthest = [0f32; N];
    for x in x {
        for g in 0..N {
            farthest[g] = if x[g].abs() > farthest[g].abs() { x[g] } else { farthest[g] };
        }
    }
    let mut inverse = farthest.map(|farthest| -32.0 / farthest);
    let (sum_xl, sum_l2) = weighted_sums(x, inverse);
    let mut scale: PerGroup =
        std::array::from_fn(|g| if sum_l2[g] == 0.0 { 0.0 } else { sum_xl[g] / sum_l2[g] });
    let mut best: PerGroup = std::array::from_fn(|g| scale[g] * sum_xl[g]);
    for trial in (-9i8..=9).filter(|&trial| trial != 0) {
        let tried = farthest.map(|farthest| -(32.0 + 0.1 * f32::from(trial)) / farthest);
        let (sum_xl, sum_l2) = weighted_sums(x, tried);
        for g in 0..N {
            if sum_l2[g] > 0.0 && sum_xl[g] * sum_xl[g] > best[g] * sum_l2[g] {
                (inverse[g], scale[g]) = (tried[g], sum_xl[g] / sum_l2[g]);
                best[g] = scale[g] * sum_xl[g];
            }
        }
    }
    let mut codes = [[0u8; N]; N];
    for (codes, x) in codes.iter_mut().zip(x) {
        for g in 0..N {
            let code = (32 + nearest_int(inverse[g] * x[g]).clamp(-32, 31)) as u8;
            codes[g] = if farthest[g].abs() < GROUP_MAX_EPS { 0 } else { code };
        }
    }
    (std::array::from_fn(|g| if farthest[g].abs() < GROUP_MAX_EPS { 0.0 } else { scale[g] }), codes)
}

/// Weighted sums of value times code and of code squared, `(sum_xl, sum_l2)`.
#[inline(always)]
fn weighted_sums(x: &[PerGroup; N], inverse: PerGroup) -> (PerGroup, PerGroup) {
    let (mut sum_xl, mut sum_l2) = ([0f32; N], [0f32; N]);
    for x in x {
        for g in 0..N {
            let code = nearest_int(inverse[g] * x[g]).clamp(-32, 31) as f32;
            let w = x[g] * x[g];
            sum_xl[g] += w * x[g] * code;
            sum_l2[g] += w * code * code;
        }
    }
    (sum_xl, sum_l2)
}
