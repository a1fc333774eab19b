//! Q4_K and Q5_K: 256 values in 8 groups of 32, each with a 6-bit scale and minimum below two f16.

use super::{nearest_int, transpose_groups, write_f16};
use crate::kernels::cpu::dispatch::for_each_level;

/// Values of a group.
const LEN: usize = 32;

/// Groups of a block.
const GROUPS: usize = 8;

/// One number a group.
type PerGroup = [f32; GROUPS];

/// Codes of a block, `[value][group]`.
type Codes = [[u8; GROUPS]; LEN];

/// Grid search for the step of a group: its range over `max_code` widened by `first`, `first + step`, and so on.
#[derive(Clone, Copy)]
struct StepSearch {
    max_code: f32,
    first: f32,
    step: f32,
    /// Steps after the first.
    more: usize,
}

const Q4_K: StepSearch = StepSearch { max_code: 15.0, first: -1.0, step: 0.1, more: 20 };
const Q5_K: StepSearch = StepSearch { max_code: 31.0, first: -0.5, step: 0.1, more: 15 };

for_each_level! {
    /// Writes blocks of 144 bytes: header, then low nibbles.
    pub(super) fn q4_k(values: &[f32], bytes: &mut [u8]) {
        for (values, block) in values.chunks_exact(256).zip(bytes.chunks_exact_mut(144)) {
            let (header, low) = block.split_at_mut(16);
            write_low_nibbles(&encode(values, Q4_K, header), low);
        }
    }

    /// Writes blocks of 176 bytes: header, fifth bits, low nibbles.
    pub(super) fn q5_k(values: &[f32], bytes: &mut [u8]) {
        for (values, block) in values.chunks_exact(256).zip(bytes.chunks_exact_mut(176)) {
            let (header, rest) = block.split_at_mut(16);
            let (high, low) = rest.split_at_mut(32);
            let codes = encode(values, Q5_K, header);
            write_low_nibbles(&codes, low);
            for (high, codes) in high.iter_mut().zip(&codes) {
                *high = (0..GROUPS).map(|g| (codes[g] >> 4) << g).sum();
            }
        }
    }
}

/// Writes the lower four bits of codes, two groups to 32 bytes.
#[inline(always)]
fn write_low_nibbles(codes: &Codes, bytes: &mut [u8]) {
    for (pair, bytes) in bytes.chunks_exact_mut(LEN).enumerate() {
        for (byte, codes) in bytes.iter_mut().zip(codes) {
            *byte = codes[2 * pair] & 0xf | codes[2 * pair + 1] << 4;
        }
    }
}

/// Codes of a block; writes its scales and minima to `header`.
#[inline(always)]
fn encode(values: &[f32], search: StepSearch, header: &mut [u8]) -> Codes {
    let x = transpose_groups::<LEN, GROUPS>(values);
    let GroupFit { scale, min, mut codes } = fit(&x, search);
    let (scale, min) = write_header(scale, min.map(|min| -min), header);
    for (codes, x) in codes.iter_mut().zip(&x) {
        for g in 0..GROUPS {
            // scales were rounded, so codes are rounded again; a group without a scale keeps its first codes
            let code = nearest_int((x[g] + min[g]) / scale[g]).clamp(0, search.max_code as i32);
            codes[g] = if scale[g] == 0.0 { codes[g] } else { code as u8 };
        }
    }
    codes
}

/// Writes the f16 scale of scales, the f16 scale of minima, and both in 6 bits a group; returns the rounded scales and minima.
#[inline(always)]
fn write_header(scales: PerGroup, mins: PerGroup, header: &mut [u8]) -> (PerGroup, PerGroup) {
    let largest = |groups: PerGroup| groups.into_iter().fold(0f32, |top, x| if x > top { x } else { top });
    let (top_scale, top_min) = (largest(scales), largest(mins));
    let six_bits = |groups: PerGroup, top: f32| {
        let inverse = if top > 0.0 { 63.0 / top } else { 0.0 };
        groups.map(|x| (nearest_int(inverse * x) as u8).min(63))
    };
    let (scales, mins) = (six_bits(scales, top_scale), six_bits(mins, top_min));
    let scale = write_f16(top_scale / 63.0, header);
    let min = write_f16(top_min / 63.0, &mut header[2..]);
    let packed = &mut header[4..16];
    for j in 0..4 {
        packed[j] = scales[j] | (scales[j + 4] >> 4) << 6;
        packed[j + 4] = mins[j] | (mins[j + 4] >> 4) << 6;
        packed[j + 8] = scales[j + 4] & 0xf | (mins[j + 4] & 0xf) << 4;
    }
    (scales.map(|bits| scale * f32::from(bits)), mins.map(|bits| min * f32::from(bits)))
}

/// Affine fit of the groups of a block: value = scale * code + min, with a min of zero or less.
struct GroupFit {
    scale: PerGroup,
    min: PerGroup,
    codes: Codes,
}

/// Best fit of all steps of `search` by weighted squared error.
#[inline(always)]
fn fit(x: &[PerGroup; LEN], search: StepSearch) -> GroupFit {
    let w = importance(x);
    let stats = GroupStats::new(x, &w);
    let mut best = Candidate::of_range(x, &w, &stats, search.max_code);
    for trial in 0..=search.more {
        let range_codes = search.first + search.step * trial as f32 + search.max_code;
        let inverse = std::array::from_fn(|g| range_codes / (stats.max[g] - best.min[g]));
        let candidate = Candidate::least_squares(x, &w, &stats, (inverse, best.min), search.max_code);
        best.improve(&candidate);
    }
    best.into_fit(x, &stats, search.max_code)
}

/// Weight of each value in the error: its magnitude plus the root mean square of its group.
#[inline(always)]
fn importance(x: &[PerGroup; LEN]) -> [PerGroup; LEN] {
    let mut squares = [0f32; GROUPS];
    for x in x {
        for g in 0..GROUPS {
            squares[g] += x[g] * x[g];
        }
    }
    let rms = squares.map(|sum| (sum / LEN as f32).sqrt());
    x.map(|x| std::array::from_fn(|g| rms[g] + x[g].abs()))
}

/// Code of a value for a minimum and the inverse of a step.
#[inline(always)]
fn code_of(x: f32, min: f32, inverse: f32, max_code: f32) -> i32 {
    nearest_int(inverse * (x - min)).clamp(0, max_code as i32)
}

/// Range and weighted sums of each group.
struct GroupStats {
    /// Smallest value, at most zero.
    min: PerGroup,
    max: PerGroup,
    sum_w: PerGroup,
    /// Sum of weight times value.
    sum_wx: PerGroup,
}

impl GroupStats {
    #[inline(always)]
    fn new(x: &[PerGroup; LEN], w: &[PerGroup; LEN]) -> Self {
        let (mut min, mut max, mut sum_w, mut sum_wx) = (x[0], x[0], w[0], [0f32; GROUPS]);
        for g in 0..GROUPS {
            sum_wx[g] = w[0][g] * x[0][g];
        }
        for (x, w) in x.iter().zip(w).skip(1) {
            for g in 0..GROUPS {
                min[g] = if x[g] < min[g] { x[g] } else { min[g] };
                max[g] = if x[g] > max[g] { x[g] } else { max[g] };
                sum_w[g] += w[g];
                sum_wx[g] += w[g] * x[g];
            }
        }
        min = min.map(|min| if min > 0.0 { 0.0 } else { min });
        Self { min, max, sum_w, sum_wx }
    }
}

/// Scales and minima of one trial, with the step and minimum that gave their codes.
struct Candidate {
    /// Inverse of the step of the codes.
    inverse: PerGroup,
    /// Minimum of the codes.
    origin: PerGroup,
    scale: PerGroup,
    min: PerGroup,
    /// Weighted squared error; infinite where least squares has no solution.
    error: PerGroup,
}

impl Candidate {
    /// Codes over the range of each group, without least squares.
    #[inline(always)]
    fn of_range(x: &[PerGroup; LEN], w: &[PerGroup; LEN], stats: &GroupStats, max_code: f32) -> Self {
        let min = stats.min;
        let inverse: PerGroup = std::array::from_fn(|g| max_code / (stats.max[g] - min[g]));
        let scale = inverse.map(|inverse| 1.0 / inverse);
        let mut error = [0f32; GROUPS];
        for (x, w) in x.iter().zip(w) {
            for g in 0..GROUPS {
                let code = code_of(x[g], min[g], inverse[g], max_code) as f32;
                let difference = scale[g] * code + min[g] - x[g];
                error[g] += w[g] * (difference * difference);
            }
        }
        Self { inverse, origin: min, scale, min, error }
    }

    /// Codes for a step and minimum, then the best scale and minimum for these codes.
    #[inline(always)]
    fn least_squares(
        x: &[PerGroup; LEN],
        w: &[PerGroup; LEN],
        stats: &GroupStats,
        (inverse, origin): (PerGroup, PerGroup),
        max_code: f32,
    ) -> Self {
        let mut codes = [[0f32; GROUPS]; LEN];
        let (mut sum_l, mut sum_l2, mut sum_xl) = ([0f32; GROUPS], [0f32; GROUPS], [0f32; GROUPS]);
        for ((x, w), codes) in x.iter().zip(w).zip(&mut codes) {
            for g in 0..GROUPS {
                let code = code_of(x[g], origin[g], inverse[g], max_code) as f32;
                codes[g] = code;
                sum_l[g] += w[g] * code;
                sum_l2[g] += w[g] * code * code;
                sum_xl[g] += w[g] * code * x[g];
            }
        }
        let (mut scale, mut min, mut is_solvable) = ([0f32; GROUPS], [0f32; GROUPS], [false; GROUPS]);
        for g in 0..GROUPS {
            let determinant = stats.sum_w[g] * sum_l2[g] - sum_l[g] * sum_l[g];
            let slope = (stats.sum_w[g] * sum_xl[g] - stats.sum_wx[g] * sum_l[g]) / determinant;
            let intercept = (sum_l2[g] * stats.sum_wx[g] - sum_l[g] * sum_xl[g]) / determinant;
            is_solvable[g] = determinant > 0.0;
            scale[g] = if intercept > 0.0 { sum_xl[g] / sum_l2[g] } else { slope };
            min[g] = if intercept > 0.0 { 0.0 } else { intercept };
        }
        let mut error = [0f32; GROUPS];
        for ((x, w), codes) in x.iter().zip(w).zip(&codes) {
            for g in 0..GROUPS {
                let difference = scale[g] * codes[g] + min[g] - x[g];
                error[g] += w[g] * (difference * difference);
            }
        }
        let error = std::array::from_fn(|g| if is_solvable[g] { error[g] } else { f32::INFINITY });
        Self { inverse, origin, scale, min, error }
    }

    /// Takes over the groups in which `other` has a smaller error.
    #[inline(always)]
    fn improve(&mut self, other: &Self) {
        for g in 0..GROUPS {
            if other.error[g] < self.error[g] {
                (self.error[g], self.inverse[g], self.origin[g]) =
                    (other.error[g], other.inverse[g], other.origin[g]);
                (self.scale[g], self.min[g]) = (other.scale[g], other.min[g]);
            }
        }
    }

    /// Codes of the candidate, with its scales and minima.
    #[inline(always)]
    fn into_fit(self, x: &[PerGroup; LEN], stats: &GroupStats, max_code: f32) -> GroupFit {
        let Self { inverse, origin, mut scale, mut min, .. } = self;
        let mut codes = [[0u8; GROUPS]; LEN];
        for (x, codes) in x.iter().zip(&mut codes) {
            for g in 0..GROUPS {
                codes[g] = code_of(x[g], origin[g], inverse[g], max_code) as u8;
            }
        }
        for g in 0..GROUPS {
            if stats.max[g] == stats.min[g] {
                // all values are one, at most zero: the minimum itself
                (scale[g], min[g]) = (0.0, stats.min[g]);
                codes.iter_mut().for_each(|codes| codes[g] = 0);
            }
        }
        GroupFit { scale, min, codes }
    }
}
