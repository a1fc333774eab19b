//! Dynamic quantization of activations: rows in int8 with one scale for every 32 values, as in ggml's Q8_1.

use super::{GROUP, QK_K};
use crate::kernels::cpu::dispatch::for_each_level;
use crate::kernels::cpu::pool;
use crate::kernels::cpu::scratch::Scratch;

/// Multiple of rows that matrix tiles read.
const ROW_TILE: usize = 16;

/// Codes of padding between rows: rows a multiple of 4 KiB apart would evict each other from the first-level cache.
const ROW_PADDING: usize = 64;

/// Activations `[m, k]` in int8: value = scale * code.
pub(super) struct Int8Activations {
    /// Codes `[m, stride]`, with `m` rounded up to 16 and `stride` above `k`; padding is zero.
    codes: Scratch<i8>,
    /// Groups `[m, stride / 32]`.
    groups: Scratch<ActivationGroup>,
    /// Codes from one row to the next.
    stride: usize,
}

/// Scale and code sums of 32 values.
#[derive(Clone, Copy)]
pub(super) struct ActivationGroup {
    /// Largest magnitude divided by 127.
    pub(super) scale: f32,
    /// `scale` times the sum of all codes.
    pub(super) scaled_sum: f32,
    /// Sums of the first and of the last 16 codes.
    pub(super) code_sums: [i32; 2],
}

impl Int8Activations {
    /// Quantizes the rows of `x` `[m, k]`. A group with a value that is not finite has a scale that is not.
    pub(super) fn new(x: &[f32], k: usize) -> Self {
        let (m, stride) = (x.len() / k, k.next_multiple_of(QK_K) + ROW_PADDING);
        let empty = ActivationGroup { scale: 0.0, scaled_sum: 0.0, code_sums: [0; 2] };
        let mut codes = Scratch::take(m.next_multiple_of(ROW_TILE) * stride, 0i8);
        let mut groups = Scratch::take(m * stride / GROUP, empty);
        codes[m * stride..].fill(0);
        let group_rows = pool::SharedPtr(groups.as_mut_ptr());
        pool::run_chunks(&mut codes[..m * stride], stride, |row, codes| {
            #[expect(unsafe_code, reason = "tasks write parts of one buffer")]
            // SAFETY: `groups` has a row of `stride / GROUP` for each of the m rows, and each task has its own row.
            let groups = unsafe {
                std::slice::from_raw_parts_mut(group_rows.get().add(row * stride / GROUP), stride / GROUP)
            };
            quantize_row(&x[row * k..(row + 1) * k], codes, groups);
        });
        Self { codes, groups, stride }
    }

    /// Codes from super-block `block` of row `row` on; rows lie [`Self::stride`] apart.
    pub(super) fn codes(&self, row: usize, block: usize) -> &[i8] {
        &self.codes[row * self.stride + block * QK_K..]
    }

    /// Groups of super-block `block` of row `row`.
    pub(super) fn groups(&self, row: usize, block: usize) -> &[ActivationGroup; QK_K / GROUP] {
        let from = (row * self.stride + block * QK_K) / GROUP;
        self.groups[from..from + QK_K / GROUP].as_array().expect("a slice of 8")
    }

    /// Codes from one row to the next.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }
}

for_each_level! {
    /// Quantizes one row, rounding to nearest, ties to even.
    fn quantize_row(x: &[f32], codes: &mut [i8], groups: &mut [ActivationGroup]) {
        for (index, (codes, group)) in codes.chunks_exact_mut(GROUP).zip(groups).enumerate() {
            let mut values = [0f32; GROUP];
            let x = &x[(index * GROUP).min(x.len())..];
            let len = x.len().min(GROUP);
            values[..len].copy_from_slice(&x[..len]);
            // by its bits NaN is larger than any number, so that the scale shows it
            let largest = values.iter().fold(0u32, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff));
            let scale = f32::from_bits(largest) / 127.0;
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            // the quotient of a scale below 2^-126 overflows: its values count as zero
            let inverse = if inverse.is_finite() { inverse } else { 0.0 };
            // adding 1.5 * 2^23 leaves the nearest integer in the low bits
            const ROUND: f32 = 12_582_912.0;
            for (code, value) in codes.iter_mut().zip(values) {
                *code = (value * inverse + ROUND).to_bits() as u8 as i8;
            }
            let sum = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum::<i32>();
            let code_sums = [sum(&codes[..GROUP / 2]), sum(&codes[GROUP / 2..])];
            *group = ActivationGroup { scale, scaled_sum: scale * (code_sums[0] + code_sums[1]) as f32, code_sums };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::CounterRng;

    #[test]
    fn rounding_moves_values_by_half_a_step_at_most() {
        let mut rng = CounterRng::new(1, 0);
        let k = 300;
        let x: Vec<f32> = (0..3 * k).map(|_| rng.normal()).collect();
        let rounded = Int8Activations::new(&x, k);
        for row in 0..3 {
            for i in 0..k {
                let group = rounded.groups(row, i / QK_K)[i % QK_K / GROUP];
                let found = group.scale * f32::from(rounded.codes(row, 0)[i]);
                assert!((found - x[row * k + i]).abs() <= 0.5001 * group.scale, "{row} {i}");
            }
        }
    }

    #[test]
    fn zeros_have_scale_zero_and_infinities_show_in_the_scale() {
        let group = |x: f32| Int8Activations::new(&[x, 1.0], 2).groups(0, 0)[0];
        assert_eq!(Int8Activations::new(&[0.0; 32], 32).groups(0, 0)[0].scale, 0.0);
        assert!(group(f32::NAN).scale.is_nan());
        assert!(group(f32::NEG_INFINITY).scale.is_infinite());
        assert_eq!(group(127.0).code_sums, [128, 0]);
    }
}
