//! NF4 to f32. Levels with vector permutations look codes up in registers.

use crate::kernels::cpu::dispatch::Level;
use crate::kernels::cpu::quantize::nf4::{BLOCK, BLOCK_BYTES, CODEBOOK};

/// Bytes of codes in a block.
const CODE_BYTES: usize = BLOCK / 2;

/// Writes the values of whole blocks to `out`.
pub(super) fn dequantize(level: Level, bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<BLOCK_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (codes, scale) = block.split_first_chunk::<CODE_BYTES>().expect("a block has codes and a scale");
        let scale = f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]);
        match level {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "the call needs the features that the level has")]
            Level::Avx512 | Level::Avx512Bf16 | Level::Amx => {
                // SAFETY: the processor has the level.
                unsafe { x86::avx512(codes, scale, out) }
            }
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "the call needs the features that the level has")]
            // SAFETY: the processor has the level.
            Level::Avx2 => unsafe { x86::avx2(codes, scale, out) },
            _ => scalar(codes, scale, out),
        }
    }
}

fn scalar(codes: &[u8; CODE_BYTES], scale: f32, out: &mut [f32; BLOCK]) {
    for (pair, &code) in out.as_chunks_mut().0.iter_mut().zip(codes) {
        *pair = [code >> 4, code & 0xf].map(|code| CODEBOOK[usize::from(code)] * scale);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![expect(unsafe_code, reason = "vector loads and stores of arrays")]

    use std::arch::x86_64::*;

    use super::{BLOCK, CODE_BYTES, CODEBOOK};

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(codes: &[u8; CODE_BYTES], scale: f32, out: &mut [f32; BLOCK]) {
        let front = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let back = _mm512_add_epi32(front, _mm512_set1_epi32(8));
        for (codes, out) in codes.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<32>().0) {
            // SAFETY: there are 16 codes of 8 bits and room for 32 values.
            unsafe {
                let values = _mm512_mul_ps(_mm512_loadu_ps(CODEBOOK.as_ptr()), _mm512_set1_ps(scale));
                let pairs = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.as_ptr().cast()));
                // a permutation looks at the lowest 4 bits
                let even = _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(pairs), values);
                let odd = _mm512_permutexvar_ps(pairs, values);
                _mm512_storeu_ps(out.as_mut_ptr(), _mm512_permutex2var_ps(even, front, odd));
                _mm512_storeu_ps(out[16..].as_mut_ptr(), _mm512_permutex2var_ps(even, back, odd));
            }
        }
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(codes: &[u8; CODE_BYTES], scale: f32, out: &mut [f32; BLOCK]) {
        for (codes, out) in codes.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<16>().0) {
            // SAFETY: there are 8 codes of 8 bits and room for 16 values.
            unsafe {
                let scale = _mm256_set1_ps(scale);
                let low = _mm256_mul_ps(_mm256_loadu_ps(CODEBOOK.as_ptr()), scale);
                let high = _mm256_mul_ps(_mm256_loadu_ps(CODEBOOK[8..].as_ptr()), scale);
                let pairs = _mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.as_ptr().cast()));
                let even = look_up(low, high, _mm256_srli_epi32::<4>(pairs));
                let odd = look_up(low, high, pairs);
                let (front, back) = (_mm256_unpacklo_ps(even, odd), _mm256_unpackhi_ps(even, odd));
                _mm256_storeu_ps(out.as_mut_ptr(), _mm256_permute2f128_ps::<0x20>(front, back));
                _mm256_storeu_ps(out[8..].as_mut_ptr(), _mm256_permute2f128_ps::<0x31>(front, back));
            }
        }
    }

    /// Values of the lowest 4 bits of each code: 3 bits select one of eight values, the fourth selects the eight.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn look_up(low: __m256, high: __m256, codes: __m256i) -> __m256 {
        let [low, high] = [_mm256_permutevar8x32_ps(low, codes), _mm256_permutevar8x32_ps(high, codes)];
        _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::dispatch::levels;

    #[test]
    fn every_level_dequantizes_every_code() {
        for scale in [1.0f32, -0.3, 1e-40, 0.0, f32::INFINITY] {
            let mut bytes: Vec<u8> = (0..8 * BLOCK_BYTES).map(|i| i as u8).collect();
            for (i, block) in bytes.chunks_exact_mut(BLOCK_BYTES).enumerate() {
                (0..CODE_BYTES).for_each(|j| block[j] = (i * CODE_BYTES + j) as u8);
                block[CODE_BYTES..].copy_from_slice(&scale.to_le_bytes());
            }
            let expected = (0..=u8::MAX).flat_map(|pair| [pair >> 4, pair & 0xf]);
            let expected: Vec<f32> = expected.map(|code| CODEBOOK[usize::from(code)] * scale).collect();
            for level in levels() {
                let mut found = vec![f32::NAN; 8 * BLOCK];
                dequantize(level, &bytes, &mut found);
                for (found, expected) in found.iter().zip(&expected) {
                    let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
                    assert!(same, "{level:?}: {found} {expected}");
                }
            }
        }
    }
}
