//! From stored forms to f32: plain halves, ggml's quantized blocks and NF4.
//!
//! Source of the block layouts: ggml's `ggml-quants.c`, `dequantize_row_*`. Every product is formed in the order ggml
//! forms it, so that the values are the same to the last bit.

mod nf4;

use super::dispatch::{for_each_level, level};
use crate::dtype::WeightDtype;

/// Writes the values that `bytes` hold to `out`; both hold the same number of whole blocks.
pub(crate) fn widen(format: WeightDtype, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(
        bytes.len() / format.block_bytes(),
        out.len() / format.block_len(),
        "blocks do not fill the rows"
    );
    match format {
        WeightDtype::F32 => f32s(bytes, out),
        WeightDtype::F16 => f16s(bytes, out),
        WeightDtype::BF16 => bf16s(bytes, out),
        WeightDtype::Q8_0 => q8_0(bytes, out),
        WeightDtype::Q4_0 => q4_0(bytes, out),
        WeightDtype::Q4K => q4_k(bytes, out),
        WeightDtype::Q5K => q5_k(bytes, out),
        WeightDtype::Q6K => q6_k(bytes, out),
        WeightDtype::Nf4 => nf4::blocks(level(), bytes, out),
    }
}

/// The f16 at `at`.
#[inline(always)]
fn scale(block: &[u8], at: usize) -> f32 {
    f16(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Binary16 to binary32, exactly: the exponent is moved by a product with 2^112, which subnormals take too.
#[inline(always)]
pub(crate) fn f16(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let sign = u32::from(bits & 0x8000) << 16;
    let value = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
    let special = f32::from_bits(magnitude | 0x7f80_0000);
    let magnitude = if bits & 0x7c00 == 0x7c00 { special } else { value };
    f32::from_bits(magnitude.to_bits() | sign)
}

/// The scale and the minimum of group `j` of 8, packed in 6 bits each.
#[inline(always)]
fn scale_min(j: usize, packed: &[u8]) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        ((packed[j + 4] & 0xf) | ((packed[j - 4] >> 6) << 4), (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4))
    };
    (f32::from(scale), f32::from(min))
}

for_each_level! {
    fn f32s(bytes: &[u8], out: &mut [f32]) {
        for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    }

    fn f16s(bytes: &[u8], out: &mut [f32]) {
        for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *value = f16(u16::from_le_bytes(*bytes));
        }
    }

    fn bf16s(bytes: &[u8], out: &mut [f32]) {
        for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
    }

    fn q8_0(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.chunks_exact(34).zip(out.chunks_exact_mut(32)) {
            let d = scale(block, 0);
            for (value, &q) in out.iter_mut().zip(&block[2..34]) {
                *value = f32::from(q as i8) * d;
            }
        }
    }

    fn q4_0(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.chunks_exact(18).zip(out.chunks_exact_mut(32)) {
            let d = scale(block, 0);
            for (i, &q) in block[2..18].iter().enumerate() {
                out[i] = (f32::from(q & 0xf) - 8.0) * d;
                out[i + 16] = (f32::from(q >> 4) - 8.0) * d;
            }
        }
    }

    fn q4_k(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.chunks_exact(144).zip(out.chunks_exact_mut(256)) {
            let (d, d_min) = (scale(block, 0), scale(block, 2));
            let packed = &block[4..16];
            for (j, (qs, out)) in block[16..144].chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
                let ((s1, m1), (s2, m2)) = (scale_min(2 * j, packed), scale_min(2 * j + 1, packed));
                let (d1, m1, d2, m2) = (d * s1, d_min * m1, d * s2, d_min * m2);
                for (i, &q) in qs.iter().enumerate() {
                    out[i] = d1 * f32::from(q & 0xf) - m1;
                    out[i + 32] = d2 * f32::from(q >> 4) - m2;
                }
            }
        }
    }

    fn q5_k(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.chunks_exact(176).zip(out.chunks_exact_mut(256)) {
            let (d, d_min) = (scale(block, 0), scale(block, 2));
            let (packed, high) = (&block[4..16], &block[16..48]);
            for (j, (qs, out)) in block[48..176].chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
                let ((s1, m1), (s2, m2)) = (scale_min(2 * j, packed), scale_min(2 * j + 1, packed));
                let (d1, m1, d2, m2) = (d * s1, d_min * m1, d * s2, d_min * m2);
                for (i, (&q, &h)) in qs.iter().zip(high).enumerate() {
                    out[i] = d1 * f32::from((q & 0xf) + ((h >> (2 * j)) & 1) * 16) - m1;
                    out[i + 32] = d2 * f32::from((q >> 4) + ((h >> (2 * j + 1)) & 1) * 16) - m2;
                }
            }
        }
    }

    fn q6_k(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.chunks_exact(210).zip(out.chunks_exact_mut(256)) {
            let d = scale(block, 208);
            for (half, out) in out.chunks_exact_mut(128).enumerate() {
                let low = &block[half * 64..half * 64 + 64];
                let high = &block[128 + half * 32..128 + half * 32 + 32];
                let scales = &block[192 + half * 8..192 + half * 8 + 8];
                for i in 0..32 {
                    let (l1, l2, h) = (low[i], low[i + 32], high[i]);
                    let quants = [
                        (l1 & 0xf) | ((h & 3) << 4),
                        (l2 & 0xf) | (((h >> 2) & 3) << 4),
                        (l1 >> 4) | (((h >> 4) & 3) << 4),
                        (l2 >> 4) | (((h >> 6) & 3) << 4),
                    ];
                    for (k, q) in quants.into_iter().enumerate() {
                        let group = f32::from(scales[i / 16 + 2 * k] as i8);
                        out[i + 32 * k] = d * group * (f32::from(q) - 32.0);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::CounterRng;
    use candle_core::quantized::{GgmlDType, ggml_file};
    use candle_core::{Device, Tensor};

    fn widened(format: WeightDtype, bytes: &[u8]) -> Vec<f32> {
        let mut out = vec![0f32; bytes.len() / format.block_bytes() * format.block_len()];
        widen(format, bytes, &mut out);
        out
    }

    #[test]
    fn every_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16(bits), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{bits:#06x}");
        }
        assert_eq!(widened(WeightDtype::BF16, &[0x80, 0x3f, 0x00, 0xc0]), [1.0, -2.0]);
        assert_eq!(widened(WeightDtype::F32, &1.5f32.to_le_bytes()), [1.5]);
    }

    /// Random blocks with sound scales, against candle's reading of the same bytes.
    #[test]
    fn quantized_blocks_agree_with_candle_to_the_last_bit() {
        for (format, theirs, scales) in [
            (WeightDtype::Q8_0, GgmlDType::Q8_0, &[0][..]),
            (WeightDtype::Q4_0, GgmlDType::Q4_0, &[0]),
            (WeightDtype::Q4K, GgmlDType::Q4K, &[0, 2]),
            (WeightDtype::Q5K, GgmlDType::Q5K, &[0, 2]),
            (WeightDtype::Q6K, GgmlDType::Q6K, &[208]),
        ] {
            let mut rng = CounterRng::new(3, 0);
            let blocks = 5;
            let mut bytes: Vec<u8> = (0..blocks * format.block_bytes()).map(|_| rng.bits() as u8).collect();
            for block in bytes.chunks_exact_mut(format.block_bytes()) {
                for &at in scales {
                    block[at..at + 2].copy_from_slice(&half::f16::from_f32(rng.normal()).to_le_bytes());
                }
            }
            let n = blocks * format.block_len();
            let tensor = ggml_file::qtensor_from_ggml(theirs, &bytes, vec![n], &Device::Cpu).unwrap();
            let expected: Vec<f32> = Tensor::to_vec1(&tensor.dequantize(&Device::Cpu).unwrap()).unwrap();
            assert_eq!(widened(format, &bytes), expected, "{format}");
        }
    }
}
