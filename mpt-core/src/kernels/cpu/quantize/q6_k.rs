//! Q6_K: 256 values in 16 groups of 16, each with a scale of 8 bits below one f16.

use super::{nearest, put_f16, side_by_side};
use crate::kernels::cpu::dispatch::for_each_level;

/// Values of a group, and groups of a block.
const N: usize = 16;

/// A number of each group.
type Lanes = [f32; N];

/// Groups whose values are all smaller count as zero.
const LEAST: f32 = 1e-15;

for_each_level! {
    pub(super) fn q6_k(values: &[f32], bytes: &mut [u8]) {
        for (values, block) in values.chunks_exact(256).zip(bytes.chunks_exact_mut(210)) {
            let x = side_by_side::<N, N>(values);
            let (scales, first) = fit(&x);
            let farthest = scales.iter().fold(0f32, |top, &x| if x.abs() > top.abs() { x } else { top });
            if farthest.abs() < LEAST {
                block.fill(0);
                continue;
            }
            let scales = put_scales(scales, farthest, block);
            pack(&rounded(&x, scales, first), block);
        }
    }
}

/// Writes the scales, each as 8 bits of the farthest from zero. Gives the values that are read back.
#[inline(always)]
fn put_scales(scales: Lanes, farthest: f32, block: &mut [u8]) -> Lanes {
    let inverse = -128.0 / farthest;
    let bits = scales.map(|scale| nearest(inverse * scale).min(127) as i8);
    let scale = put_f16(1.0 / inverse, &mut block[208..]);
    for (byte, bits) in block[192..208].iter_mut().zip(bits) {
        *byte = bits as u8;
    }
    bits.map(|bits| scale * f32::from(bits))
}

/// The levels for scales as they were written; where one is zero, those found first.
#[inline(always)]
fn rounded(x: &[Lanes; N], scales: Lanes, first: [[u8; N]; N]) -> [[u8; N]; N] {
    let mut levels = first;
    for (levels, x) in levels.iter_mut().zip(x) {
        for g in 0..N {
            let level = 32 + nearest(x[g] / scales[g]).clamp(-32, 31);
            levels[g] = if scales[g] == 0.0 { levels[g] } else { level as u8 };
        }
    }
    levels
}

/// Four bits of two quarters of each half in 64 bytes, then two bits of all four in 32.
#[inline(always)]
fn pack(levels: &[[u8; N]; N], block: &mut [u8]) {
    let at = |value: usize| levels[value % N][value / N];
    for half in 0..2 {
        for i in 0..32 {
            let [a, b, c, d] = [0, 32, 64, 96].map(|quarter| at(128 * half + quarter + i));
            block[64 * half + i] = a & 0xf | c << 4;
            block[64 * half + 32 + i] = b & 0xf | d << 4;
            block[128 + 32 * half + i] = a >> 4 | (b >> 4) << 2 | (c >> 4) << 4 | (d >> 4) << 6;
        }
    }
}

/// For each group the scale of the best of 19 trials, and its levels: the value farthest from zero gets a level about -32,
/// and the scale follows by least squares with squares as weights.
#[inline(always)]
fn fit(x: &[Lanes; N]) -> (Lanes, [[u8; N]; N]) {
    let mut farthest = [0f32; N];
    for x in x {
        for g in 0..N {
            farthest[g] = if x[g].abs() > farthest[g].abs() { x[g] } else { farthest[g] };
        }
    }
    let mut inverse = farthest.map(|farthest| -32.0 / farthest);
    let (sum_xl, sum_l2) = sums(x, inverse);
    let mut scale: Lanes =
        std::array::from_fn(|g| if sum_l2[g] == 0.0 { 0.0 } else { sum_xl[g] / sum_l2[g] });
    let mut best: Lanes = std::array::from_fn(|g| scale[g] * sum_xl[g]);
    for trial in (-9i8..=9).filter(|&trial| trial != 0) {
        let tried = farthest.map(|farthest| -(32.0 + 0.1 * f32::from(trial)) / farthest);
        let (sum_xl, sum_l2) = sums(x, tried);
        for g in 0..N {
            if sum_l2[g] > 0.0 && sum_xl[g] * sum_xl[g] > best[g] * sum_l2[g] {
                (inverse[g], scale[g]) = (tried[g], sum_xl[g] / sum_l2[g]);
                best[g] = scale[g] * sum_xl[g];
            }
        }
    }
    let mut levels = [[0u8; N]; N];
    for (levels, x) in levels.iter_mut().zip(x) {
        for g in 0..N {
            let level = (32 + nearest(inverse[g] * x[g]).clamp(-32, 31)) as u8;
            levels[g] = if farthest[g].abs() < LEAST { 0 } else { level };
        }
    }
    (std::array::from_fn(|g| if farthest[g].abs() < LEAST { 0.0 } else { scale[g] }), levels)
}

/// Weighted sums of value times level and of level squared.
#[inline(always)]
fn sums(x: &[Lanes; N], inverse: Lanes) -> (Lanes, Lanes) {
    let (mut sum_xl, mut sum_l2) = ([0f32; N], [0f32; N]);
    for x in x {
        for g in 0..N {
            let level = nearest(inverse[g] * x[g]).clamp(-32, 31) as f32;
            let w = x[g] * x[g];
            sum_xl[g] += w * x[g] * level;
            sum_l2[g] += w * level * level;
        }
    }
    (sum_xl, sum_l2)
}
