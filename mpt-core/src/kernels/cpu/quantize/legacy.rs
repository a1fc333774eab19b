//! Q8_0 and Q4_0: 32 values below one f16 scale.

use super::write_f16;
use crate::kernels::cpu::dispatch::for_each_level;

/// Largest f32 below one half. Added before truncation it rounds to nearest, ties away from zero.
const BELOW_HALF: f32 = 0.499_999_97;

for_each_level! {
    /// Writes blocks of 34 bytes; the scale is the largest magnitude over 127.
    pub(super) fn q8_0(values: &[f32], bytes: &mut [u8]) {
        for (values, block) in values.chunks_exact(32).zip(bytes.chunks_exact_mut(34)) {
            let largest = values.iter().fold(0f32, |top, x| if x.abs() > top { x.abs() } else { top });
            let scale = largest / 127.0;
            let inverse = finite_or_zero(1.0 / scale);
            write_f16(scale, block);
            for (code, x) in block[2..].iter_mut().zip(values) {
                let x = x * inverse;
                *code = (x + BELOW_HALF.copysign(x)) as i32 as u8;
            }
        }
    }

    /// Writes blocks of 18 bytes; the scale is the value farthest from zero over -8, so that this value has a code of its own.
    pub(super) fn q4_0(values: &[f32], bytes: &mut [u8]) {
        for (values, block) in values.chunks_exact(32).zip(bytes.chunks_exact_mut(18)) {
            let farthest = values.iter().fold(0f32, |top, &x| if x.abs() > top.abs() { x } else { top });
            let scale = farthest / -8.0;
            write_f16(scale, block);
            if scale != 0.0 && (1.0 / scale).is_infinite() {
                block[2..].fill(0); // as ggml's overflowing conversions do; the f16 scale is zero
                continue;
            }
            let inverse = finite_or_zero(1.0 / scale);
            let code = |x: f32| ((x * inverse + 8.5) as i32).min(15) as u8;
            for i in 0..16 {
                block[2 + i] = code(values[i]) | code(values[i + 16]) << 4;
            }
        }
    }
}

/// `inverse` of a scale, or zero where it is not finite.
#[inline(always)]
fn finite_or_zero(inverse: f32) -> f32 {
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
