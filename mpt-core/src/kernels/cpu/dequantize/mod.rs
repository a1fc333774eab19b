//! Dequantization: stored weights of every dtype to f32. The inverse is `quantize`, and `convert` for f16 and bf16.
//!
//! Values equal those of ggml to the last bit, since each product is formed in ggml's order.
//!
//! Source: ggml, `ggml-quants.c`, `dequantize_row_*`.

mod nf4;

use super::dispatch::{for_each_level, level};
use crate::dtype::WeightDtype;

/// Writes the values of `bytes` to `out`; both hold the same number of whole blocks.
///
/// # Panics
/// When the numbers of blocks differ.
pub(crate) fn dequantize(dtype: WeightDtype, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(
        bytes.len() / dtype.block_bytes(),
        out.len() / dtype.block_len(),
        "blocks do not fill the rows"
    );
    match dtype {
        WeightDtype::F32 => f32_blocks(bytes, out),
        WeightDtype::F16 => f16_blocks(bytes, out),
        WeightDtype::BF16 => bf16_blocks(bytes, out),
        WeightDtype::Q8_0 => q8_0(bytes, out),
        WeightDtype::Q4_0 => q4_0(bytes, out),
        WeightDtype::Q4K => q4_k(bytes, out),
        WeightDtype::Q5K => q5_k(bytes, out),
        WeightDtype::Q6K => q6_k(bytes, out),
        WeightDtype::Nf4 => nf4::dequantize(level(), bytes, out),
    }
}

/// The f16 at byte `at` of a block.
#[inline(always)]
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// IEEE binary16 to binary32, exactly. A product with 2^112 moves the exponent, of subnormals too.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let sign = u32::from(bits & 0x8000) << 16;
    let value = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
    let special = f32::from_bits(magnitude | 0x7f80_0000);
    let magnitude = if bits & 0x7c00 == 0x7c00 { special } else { value };
    f32::from_bits(magnitude.to_bits() | sign)
}

/// 6-bit scale and minimum of group `j` of 8.
#[inline(always)]
fn scale_min(j: usize, packed: &[u8]) -> (f32, f32) {
    let (f16_at, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        ((packed[j + 4] & 0xf) | ((packed[j - 4] >> 6) << 4), (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4))
    };
    (f32::from(f16_at), f32::from(min))
}

for_each_level! {
    fn f32_blocks(bytes: &[u8], out: &mut [f32]) {
        for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    }

    fn f16_blocks(bytes: &[u8], out: &mut [f32]) {
        for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *value = f16_to_f32(u16::from_le_bytes(*bytes));
        }
    }

    fn bf16_blocks(bytes: &[u8], out: &mut [f32]) {
        for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
    }

    fn q8_0(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.chunks_exact(34).zip(out.chunks_exact_mut(32)) {
            let d = f16_at(block, 0);
            for (value, &q) in out.iter_mut().zip(&block[2..34]) {
                *value = f32::from(q as i8) * d;
            }
        }
    }

    fn q4_0(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.chunks_exact(18).zip(out.chunks_exact_mut(32)) {
            let d = f16_at(block, 0);
            for (i, &q) in block[2..18].iter().enumerate() {
                out[i] = (f32::from(q & 0xf) - 8.0) * d;
                out[i + 16] = (f32::from(q >> 4) - 8.0) * d;
            }
        }
    }

    fn q4_k(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.chunks_exact(144).zip(out.chunks_exact_mut(256)) {
            let (d, d_min) = (f16_at(block, 0), f16_at(block, 2));
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
            let (d, d_min) = (f16_at(block, 0), f16_at(block, 2));
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
            let d = f16_at(block, 208);
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

    fn dequantized(dtype: WeightDtype, bytes: &[u8]) -> Vec<f32> {
        let mut out = vec![0f32; bytes.len() / dtype.block_bytes() * dtype.block_len()];
        dequantize(dtype, bytes, &mut out);
        out
    }

    #[test]
    fn every_f16_is_converted_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16_to_f32(bits), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{bits:#06x}");
        }
        assert_eq!(dequantized(WeightDtype::BF16, &[0x80, 0x3f, 0x00, 0xc0]), [1.0, -2.0]);
        assert_eq!(dequantized(WeightDtype::F32, &1.5f32.to_le_bytes()), [1.5]);
    }

    /// Random blocks with sound scales, against candle's reading of the same bytes.
    #[test]
    fn quantized_blocks_agree_with_candle_to_the_last_bit() {
        for (dtype, theirs, scales) in [
            (WeightDtype::Q8_0, GgmlDType::Q8_0, &[0][..]),
            (WeightDtype::Q4_0, GgmlDType::Q4_0, &[0]),
            (WeightDtype::Q4K, GgmlDType::Q4K, &[0, 2]),
            (WeightDtype::Q5K, GgmlDType::Q5K, &[0, 2]),
            (WeightDtype::Q6K, GgmlDType::Q6K, &[208]),
        ] {
            let mut rng = CounterRng::new(3, 0);
            let blocks = 5;
            let mut bytes: Vec<u8> = (0..blocks * dtype.block_bytes()).map(|_| rng.bits() as u8).collect();
            for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
                for &at in scales {
                    block[at..at + 2].copy_from_slice(&half::f16::from_f32(rng.normal()).to_le_bytes());
                }
            }
            let n = blocks * dtype.block_len();
            let tensor = ggml_file::qtensor_from_ggml(theirs, &bytes, vec![n], &Device::Cpu).unwrap();
            let expected: Vec<f32> = Tensor::to_vec1(&tensor.dequantize(&Device::Cpu).unwrap()).unwrap();
            assert_eq!(dequantized(dtype, &bytes), expected, "{dtype}");
        }
    }
}
