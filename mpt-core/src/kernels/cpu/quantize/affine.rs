//! Q4_K and Q5_K: 256 values in 8 groups of 32, each with a scale and a minimum of 6 bits below two f16.

use super::{nearest, put_f16, side_by_side};
use crate::kernels::cpu::dispatch::for_each_level;

/// Values of a group.
const LEN: usize = 32;
/// Groups of a block.
const GROUPS: usize = 8;

/// A number of each group.
type Lanes = [f32; GROUPS];

/// The steps that are tried for a group: its range over `most`, widened by `first`, `first + step`, and so on.
#[derive(Clone, Copy)]
struct Trials {
    /// The highest level.
    most: f32,
    first: f32,
    step: f32,
    /// Trials after the first.
    more: usize,
}

const Q4_K: Trials = Trials { most: 15.0, first: -1.0, step: 0.1, more: 20 };
const Q5_K: Trials = Trials { most: 31.0, first: -0.5, step: 0.1, more: 15 };

for_each_level! {
    pub(super) fn q4_k(values: &[f32], bytes: &mut [u8]) {
        for (values, block) in values.chunks_exact(256).zip(bytes.chunks_exact_mut(144)) {
            let (header, low) = block.split_at_mut(16);
            put_low(&levels(values, Q4_K, header), low);
        }
    }

    pub(super) fn q5_k(values: &[f32], bytes: &mut [u8]) {
        for (values, block) in values.chunks_exact(256).zip(bytes.chunks_exact_mut(176)) {
            let (header, rest) = block.split_at_mut(16);
            let (high, low) = rest.split_at_mut(32);
            let levels = levels(values, Q5_K, header);
            put_low(&levels, low);
            for (high, levels) in high.iter_mut().zip(&levels) {
                *high = (0..GROUPS).map(|g| (levels[g] >> 4) << g).sum();
            }
        }
    }
}

/// The lower four bits, two groups to 32 bytes.
#[inline(always)]
fn put_low(levels: &[[u8; GROUPS]; LEN], bytes: &mut [u8]) {
    for (pair, bytes) in bytes.chunks_exact_mut(LEN).enumerate() {
        for (byte, levels) in bytes.iter_mut().zip(levels) {
            *byte = levels[2 * pair] & 0xf | levels[2 * pair + 1] << 4;
        }
    }
}

/// The levels of a block, groups side by side; writes its scales and minima to `header`.
#[inline(always)]
fn levels(values: &[f32], trials: Trials, header: &mut [u8]) -> [[u8; GROUPS]; LEN] {
    let x = side_by_side::<LEN, GROUPS>(values);
    let Fit { scale, min, mut levels } = fit(&x, trials);
    let (scale, min) = put_header(scale, min.map(|min| -min), header);
    for (levels, x) in levels.iter_mut().zip(&x) {
        for g in 0..GROUPS {
            // the scale was rounded, so the levels are rounded again; without a scale the first ones stay
            let level = nearest((x[g] + min[g]) / scale[g]).clamp(0, trials.most as i32);
            levels[g] = if scale[g] == 0.0 { levels[g] } else { level as u8 };
        }
    }
    levels
}

/// Writes scales and minima, each as 6 bits of the largest: the scales' f16, the minima's f16, 12 bytes. Gives the values
/// that are read back.
#[inline(always)]
fn put_header(scales: Lanes, mins: Lanes, header: &mut [u8]) -> (Lanes, Lanes) {
    let largest = |lanes: Lanes| lanes.into_iter().fold(0f32, |top, x| if x > top { x } else { top });
    let (top_scale, top_min) = (largest(scales), largest(mins));
    let six_bits = |lanes: Lanes, top: f32| {
        let inverse = if top > 0.0 { 63.0 / top } else { 0.0 };
        lanes.map(|x| (nearest(inverse * x) as u8).min(63))
    };
    let (scales, mins) = (six_bits(scales, top_scale), six_bits(mins, top_min));
    let scale = put_f16(top_scale / 63.0, header);
    let min = put_f16(top_min / 63.0, &mut header[2..]);
    let packed = &mut header[4..16];
    for j in 0..4 {
        packed[j] = scales[j] | (scales[j + 4] >> 4) << 6;
        packed[j + 4] = mins[j] | (mins[j + 4] >> 4) << 6;
        packed[j + 8] = scales[j + 4] & 0xf | (mins[j + 4] & 0xf) << 4;
    }
    (scales.map(|bits| scale * f32::from(bits)), mins.map(|bits| min * f32::from(bits)))
}

/// What stands for the groups of a block: value = scale * level + min, where min is at most zero.
struct Fit {
    scale: Lanes,
    min: Lanes,
    levels: [[u8; GROUPS]; LEN],
}

/// Larger values count more: root mean square of the group plus the value's size.
#[inline(always)]
fn importance(x: &[Lanes; LEN]) -> [Lanes; LEN] {
    let mut squares = [0f32; GROUPS];
    for x in x {
        for g in 0..GROUPS {
            squares[g] += x[g] * x[g];
        }
    }
    let mean = squares.map(|sum| (sum / LEN as f32).sqrt());
    x.map(|x| std::array::from_fn(|g| mean[g] + x[g].abs()))
}

/// The level of each value for a step, given as its inverse, and a minimum.
#[inline(always)]
fn level(x: f32, min: f32, inverse: f32, most: f32) -> i32 {
    nearest(inverse * (x - min)).clamp(0, most as i32)
}

/// Of all trials the one with the least weighted squared error; each gives levels, and the best scale and minimum for them
/// by least squares.
#[inline(always)]
fn fit(x: &[Lanes; LEN], trials: Trials) -> Fit {
    let w = importance(x);
    let (mut min, mut max, mut sum_w, mut sum_x) = (x[0], x[0], w[0], [0f32; GROUPS]);
    for g in 0..GROUPS {
        sum_x[g] = w[0][g] * x[0][g];
    }
    for (x, w) in x.iter().zip(&w).skip(1) {
        for g in 0..GROUPS {
            min[g] = if x[g] < min[g] { x[g] } else { min[g] };
            max[g] = if x[g] > max[g] { x[g] } else { max[g] };
            sum_w[g] += w[g];
            sum_x[g] += w[g] * x[g];
        }
    }
    min = min.map(|min| if min > 0.0 { 0.0 } else { min });
    let lowest = min;
    let mut inverse: Lanes = std::array::from_fn(|g| trials.most / (max[g] - min[g]));
    let mut scale = inverse.map(|inverse| 1.0 / inverse);
    let mut origin = min; // the minimum that the best levels were found with
    let mut least = [0f32; GROUPS];
    for (x, w) in x.iter().zip(&w) {
        for g in 0..GROUPS {
            let level = level(x[g], min[g], inverse[g], trials.most) as f32;
            let error = scale[g] * level + min[g] - x[g];
            least[g] += w[g] * (error * error);
        }
    }
    for trial in 0..=trials.more {
        let wide = trials.first + trials.step * trial as f32 + trials.most;
        let tried: Lanes = std::array::from_fn(|g| wide / (max[g] - min[g]));
        let mut levels = [[0f32; GROUPS]; LEN];
        let (mut sum_l, mut sum_l2, mut sum_xl) = ([0f32; GROUPS], [0f32; GROUPS], [0f32; GROUPS]);
        for ((x, w), levels) in x.iter().zip(&w).zip(&mut levels) {
            for g in 0..GROUPS {
                let level = level(x[g], min[g], tried[g], trials.most) as f32;
                levels[g] = level;
                sum_l[g] += w[g] * level;
                sum_l2[g] += w[g] * level * level;
                sum_xl[g] += w[g] * level * x[g];
            }
        }
        let (mut its_scale, mut its_min, mut is_solvable) = ([0f32; GROUPS], [0f32; GROUPS], [false; GROUPS]);
        for g in 0..GROUPS {
            let determinant = sum_w[g] * sum_l2[g] - sum_l[g] * sum_l[g];
            let scale = (sum_w[g] * sum_xl[g] - sum_x[g] * sum_l[g]) / determinant;
            let min = (sum_l2[g] * sum_x[g] - sum_l[g] * sum_xl[g]) / determinant;
            is_solvable[g] = determinant > 0.0;
            its_scale[g] = if min > 0.0 { sum_xl[g] / sum_l2[g] } else { scale };
            its_min[g] = if min > 0.0 { 0.0 } else { min };
        }
        let mut its_error = [0f32; GROUPS];
        for ((x, w), levels) in x.iter().zip(&w).zip(&levels) {
            for g in 0..GROUPS {
                let error = its_scale[g] * levels[g] + its_min[g] - x[g];
                its_error[g] += w[g] * (error * error);
            }
        }
        for g in 0..GROUPS {
            if is_solvable[g] && its_error[g] < least[g] {
                (least[g], inverse[g], origin[g]) = (its_error[g], tried[g], min[g]);
                (scale[g], min[g]) = (its_scale[g], its_min[g]);
            }
        }
    }
    let mut levels = [[0u8; GROUPS]; LEN];
    for (x, levels) in x.iter().zip(&mut levels) {
        for g in 0..GROUPS {
            levels[g] = level(x[g], origin[g], inverse[g], trials.most) as u8;
        }
    }
    for g in 0..GROUPS {
        if max[g] == lowest[g] {
            // one value, at most zero: it is the minimum itself
            (scale[g], min[g]) = (0.0, lowest[g]);
            levels.iter_mut().for_each(|levels| levels[g] = 0);
        }
    }
    Fit { scale, min, levels }
}
