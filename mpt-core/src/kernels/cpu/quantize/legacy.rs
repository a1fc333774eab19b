//! Q8_0 and Q4_0: 32 values below one scale, rounded each for itself.

use super::put_f16;
use crate::kernels::cpu::dispatch::for_each_level;

/// The largest f32 below one half: added before truncating, it rounds halves away from zero and nothing else.
const BELOW_HALF: f32 = 0.499_999_97;

for_each_level! {
    /// The scale is the largest value over 127.
    pub(super) fn q8_0(values: &[f32], bytes: &mut [u8]) {
        for (values, block) in values.chunks_exact(32).zip(bytes.chunks_exact_mut(34)) {
            let largest = values.iter().fold(0f32, |top, x| if x.abs() > top { x.abs() } else { top });
            let scale = largest / 127.0;
            let inverse = usable(1.0 / scale);
            put_f16(scale, block);
            for (level, x) in block[2..].iter_mut().zip(values) {
                let x = x * inverse;
                *level = (x + BELOW_HALF.copysign(x)) as i32 as u8;
            }
        }
    }

    /// The scale is the value farthest from zero over -8, so that it has a level of its own.
    pub(super) fn q4_0(values: &[f32], bytes: &mut [u8]) {
        for (values, block) in values.chunks_exact(32).zip(bytes.chunks_exact_mut(18)) {
            let farthest = values.iter().fold(0f32, |top, &x| if x.abs() > top.abs() { x } else { top });
            let scale = farthest / -8.0;
            put_f16(scale, block);
            if scale != 0.0 && (1.0 / scale).is_infinite() {
                block[2..].fill(0); // as ggml's overflowing conversions do; the scale is written as zero
                continue;
            }
            let inverse = usable(1.0 / scale);
            let level = |x: f32| ((x * inverse + 8.5) as i32).min(15) as u8;
            for i in 0..16 {
                block[2 + i] = level(values[i]) | level(values[i + 16]) << 4;
            }
        }
    }
}

/// The inverse of a scale, zero where the scale is zero or so small that it has none.
#[inline(always)]
fn usable(inverse: f32) -> f32 {
    if inverse.is_finite() { inverse } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounding_is_that_of_the_standard_library(x in -128.0f32..128.0) {
            for x in [x, x.round() + 0.5, (x.round() + 0.5).next_down(), (x.round() + 0.5).next_up()] {
                prop_assert_eq!((x + BELOW_HALF.copysign(x)) as i32, x.round() as i32);
            }
        }
    }
}
