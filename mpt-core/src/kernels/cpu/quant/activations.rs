//! Rows of activations rounded to 8 bits, with one scale for every 32 values.

use super::{GROUP, SPAN};
use crate::kernels::cpu::dispatch::for_each_level;
use crate::kernels::cpu::pool;
use crate::kernels::cpu::scratch::Scratch;

/// Rows that start on a boundary that matrix tiles of 16 rows like.
const ROW_TILE: usize = 16;

/// Codes between rows: rows that lie a multiple of 4 KiB apart would push each other out of the first-level cache.
const APART: usize = 64;

/// Activations `[m, k]` as `scale * code`.
pub(super) struct Activations {
    /// `[m, stride]`, where `m` is rounded up to 16 and `stride` is more than `k`; what does not exist is zero.
    codes: Scratch<i8>,
    /// `[m, stride / 32]`.
    groups: Scratch<Group>,
    stride: usize,
}

/// 32 values.
#[derive(Clone, Copy)]
pub(super) struct Group {
    /// The largest magnitude divided by 127.
    pub(super) scale: f32,
    /// `scale` times the sum of all codes.
    pub(super) total: f32,
    /// The sums of the first and the last 16 codes.
    pub(super) sums: [i32; 2],
}

impl Activations {
    /// Rounds the rows of `x`, `k` values each. A row with a value that is not finite has scales that are not.
    pub(super) fn new(x: &[f32], k: usize) -> Self {
        let (m, stride) = (x.len() / k, k.next_multiple_of(SPAN) + APART);
        let empty = Group { scale: 0.0, total: 0.0, sums: [0; 2] };
        let mut codes = Scratch::take(m.next_multiple_of(ROW_TILE) * stride, 0i8);
        let mut groups = Scratch::take(m * stride / GROUP, empty);
        codes[m * stride..].fill(0);
        let rows = pool::Shared(groups.as_mut_ptr());
        pool::run_chunks(&mut codes[..m * stride], stride, |row, codes| {
            #[expect(unsafe_code, reason = "tasks write parts of one buffer")]
            // SAFETY: `groups` has a row of `stride / GROUP` for each of the m rows, and each task has its own row.
            let groups = unsafe {
                std::slice::from_raw_parts_mut(rows.get().add(row * stride / GROUP), stride / GROUP)
            };
            round_row(&x[row * k..(row + 1) * k], codes, groups);
        });
        Self { codes, groups, stride }
    }

    /// The codes from the span `span` on of all rows from `row` on; rows lie [`Self::stride`] apart.
    pub(super) fn codes(&self, row: usize, span: usize) -> &[i8] {
        &self.codes[row * self.stride + span * SPAN..]
    }

    /// The groups of one span of a row.
    pub(super) fn groups(&self, row: usize, span: usize) -> &[Group; SPAN / GROUP] {
        let from = (row * self.stride + span * SPAN) / GROUP;
        self.groups[from..from + SPAN / GROUP].as_array().expect("a slice of 8")
    }

    /// Codes from a row to the next.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }
}

for_each_level! {
    /// Rounds one row to nearest, ties to even.
    fn round_row(x: &[f32], codes: &mut [i8], groups: &mut [Group]) {
        for (index, (codes, group)) in codes.chunks_exact_mut(GROUP).zip(groups).enumerate() {
            let mut values = [0f32; GROUP];
            let x = &x[(index * GROUP).min(x.len())..];
            let len = x.len().min(GROUP);
            values[..len].copy_from_slice(&x[..len]);
            // a NaN must not hide: it is larger than anything by its bits
            let largest = values.iter().fold(0u32, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff));
            let scale = f32::from_bits(largest) / 127.0;
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            // below 2^-126 the quotient overflows: such values count as zero
            let inverse = if inverse.is_finite() { inverse } else { 0.0 };
            // adding 1.5 * 2^23 leaves the nearest integer in the lowest bits
            const ROUND: f32 = 12_582_912.0;
            for (code, value) in codes.iter_mut().zip(values) {
                *code = (value * inverse + ROUND).to_bits() as u8 as i8;
            }
            let sum = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum::<i32>();
            let sums = [sum(&codes[..GROUP / 2]), sum(&codes[GROUP / 2..])];
            *group = Group { scale, total: scale * (sums[0] + sums[1]) as f32, sums };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::CounterRng;

    #[test]
    fn values_come_back_within_half_a_step() {
        let mut rng = CounterRng::new(1, 0);
        let k = 300;
        let x: Vec<f32> = (0..3 * k).map(|_| rng.normal()).collect();
        let rounded = Activations::new(&x, k);
        for row in 0..3 {
            for i in 0..k {
                let group = rounded.groups(row, i / SPAN)[i % SPAN / GROUP];
                let found = group.scale * f32::from(rounded.codes(row, 0)[i]);
                assert!((found - x[row * k + i]).abs() <= 0.5001 * group.scale, "{row} {i}");
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_not_finite_shows() {
        let group = |x: f32| Activations::new(&[x, 1.0], 2).groups(0, 0)[0];
        assert_eq!(Activations::new(&[0.0; 32], 32).groups(0, 0)[0].scale, 0.0);
        assert!(group(f32::NAN).scale.is_nan());
        assert!(group(f32::NEG_INFINITY).scale.is_infinite());
        assert_eq!(group(127.0).sums, [128, 0]);
    }
}
