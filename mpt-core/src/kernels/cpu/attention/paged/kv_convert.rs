//! Conversion of keys and values to bf16 and int8, and back.
//!
//! Error bounds for a finite vector x: bf16 elements within 2^-8 of their magnitude (from 2^-126 to 2^127); int8 elements within
//! `1.0001 max |x| / 254` (for `max |x|` above 2^-119). A vector that is not finite does not become finite: bf16 keeps infinities
//! and NaN, int8 makes the whole vector NaN.

use crate::kernels::cpu::dispatch::for_each_level;

/// 1.5 * 2^23: adding it rounds to an integer in the low bits, ties to even.
const ROUND: f32 = 12_582_912.0;

for_each_level! {
    /// Rounds to the nearest bf16, ties to even; NaN stays NaN.
    pub(crate) fn f32_to_bf16(x: &[f32], out: &mut [u16]) {
        for (out, x) in out.iter_mut().zip(x) {
            let bits = x.to_bits();
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            *out = if x.is_nan() { bits >> 16 | 0x40 } else { rounded } as u16;
        }
    }

    /// Rounds a vector to multiples of its scale, `max |x| / 127`; returns the scale, NaN when an element is not finite.
    pub(crate) fn quantize_int8(x: &[f32], out: &mut [i8]) -> f32 {
        let mut largest = [0u32; 16]; // bits of magnitudes are ordered as magnitudes, with infinities and NaN on top
        let (chunks, rest) = x.as_chunks::<16>();
        for chunk in chunks {
            for (largest, x) in largest.iter_mut().zip(chunk) {
                *largest = (*largest).max(x.abs().to_bits());
            }
        }
        let largest = largest.into_iter().chain(rest.iter().map(|x| x.abs().to_bits())).fold(0, u32::max);
        let top = f32::from_bits(largest);
        let scale = if top.is_finite() { top / 127.0 } else { f32::NAN };
        for (out, x) in out.iter_mut().zip(x) {
            *out = (x / scale + ROUND).to_bits() as i8; // a vector of zeros divides by 0, and NaN has 0 there
        }
        scale
    }

    /// Converts bf16 to f32.
    pub(crate) fn bf16_to_f32(values: &[u16], out: &mut [f32]) {
        for (out, &value) in out.iter_mut().zip(values) {
            *out = f32::from_bits(u32::from(value) << 16);
        }
    }

    /// Converts int8 to f32, without the scale.
    pub(crate) fn int8_to_f32(values: &[i8], out: &mut [f32]) {
        for (out, &value) in out.iter_mut().zip(values) {
            *out = f32::from(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::largest;
    use proptest::prelude::*;

    fn int8(x: &[f32]) -> Vec<f32> {
        let (mut values, mut out) = (vec![0i8; x.len()], vec![0f32; x.len()]);
        let scale = quantize_int8(x, &mut values);
        int8_to_f32(&values, &mut out);
        out.iter().map(|x| x * scale).collect()
    }

    fn bf16(x: &[f32]) -> Vec<f32> {
        let (mut values, mut out) = (vec![0u16; x.len()], vec![0f32; x.len()]);
        f32_to_bf16(x, &mut values);
        bf16_to_f32(&values, &mut out);
        out
    }

    proptest! {
        #[test]
        fn errors_keep_their_bounds(x in proptest::collection::vec(-4f32..4.0, 1..140), power in -115i32..125) {
            let x: Vec<f32> = x.iter().map(|x| x * 2f32.powi(power)).collect();
            let top = largest(x.iter().copied()) as f32;
            prop_assume!(top > 2f32.powi(-119));
            for (x, found) in x.iter().zip(int8(&x)) {
                prop_assert!((x - found).abs() <= top / 254.0 * 1.0001, "{x} {found}, the largest {top}");
            }
            for (x, found) in x.iter().zip(bf16(&x)) {
                prop_assert!(x.abs() < 2f32.powi(-126) || (x - found).abs() <= x.abs() / 256.0, "{x} {found}");
            }
        }
    }

    proptest! {
        #[test]
        fn bf16_is_rounded_as_by_half(bits in proptest::collection::vec(any::<u32>(), 40)) {
            let x: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
            let mut found = vec![0u16; x.len()];
            f32_to_bf16(&x, &mut found);
            let expected: Vec<u16> = x.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn int8_is_the_nearest_multiple_of_its_scale(x in proptest::collection::vec(-4f32..4.0, 1..140), power in -80i32..80) {
            let x: Vec<f32> = x.iter().map(|x| x * 2f32.powi(power)).collect();
            let mut found = vec![0i8; x.len()];
            let scale = quantize_int8(&x, &mut found);
            let expected: Vec<i8> = x.iter().map(|x| (x / scale).round_ties_even() as i8).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn infinities_and_nan_stay_visible() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(int8(&[1.0, bad, 0.0]).iter().all(|x| x.is_nan()));
            assert!(!bf16(&[1.0, bad])[1].is_finite());
        }
        assert_eq!(int8(&[0.0, -0.0]), [0.0, 0.0]);
    }
}
