//! Values of a weight, in the form it is stored in, as bf16 parts: 32 of one row at a time.

use std::arch::x86_64::*;

use super::AHEAD;
use crate::kernels::cpu::quantize::nf4;

/// The even and the odd ones of 32 values.
type Values = [__m512; 2];

/// How 32 values of a form become words of two bf16 parts that follow each other along the row.
///
/// The parts are those of [`Form::Split`](crate::kernels::cpu::gemm::Form), but for bits below the smallest normal number,
/// which the matrix unit takes for zero.
pub(super) trait Parts {
    /// Bytes of 32 values that a row's rest is padded to.
    const STEP_BYTES: usize;
    /// Parts of a value: the others are zero. Two where 8 bits hold a value, so that an infinity gives no number, as in `gemm`.
    const COUNT: usize;

    /// Where step `step` begins.
    #[inline(always)]
    fn offset(step: usize) -> usize {
        step * Self::STEP_BYTES
    }

    /// The words of step `step` of a row.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ, VL and BF16, and the step lies in the row.
    unsafe fn words(row: *const u8, step: usize) -> [__m512i; 3];

    /// Asks for what follows the step in memory. Rows often lie whole pages apart, so that the first-level cache would not hold
    /// what 64 of them ask for.
    ///
    /// # Safety
    /// The processor has SSE.
    #[inline(always)]
    unsafe fn prefetch(row: *const u8, step: usize) {
        for line in (0..Self::STEP_BYTES).step_by(64) {
            // SAFETY: a hint about an address, which need not be valid.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(row.wrapping_add(Self::offset(step) + AHEAD + line).cast())
            };
        }
    }
}

pub(super) struct F32;

impl Parts for F32 {
    const STEP_BYTES: usize = 128;
    const COUNT: usize = 3;

    #[inline(always)]
    unsafe fn words(row: *const u8, step: usize) -> [__m512i; 3] {
        // SAFETY: the caller's promise.
        unsafe {
            let values = row.add(Self::offset(step)).cast::<f32>();
            three(even_and_odd(_mm512_loadu_ps(values), _mm512_loadu_ps(values.add(16))))
        }
    }
}

pub(super) struct F16;

impl Parts for F16 {
    const STEP_BYTES: usize = 64;
    const COUNT: usize = 2;

    #[inline(always)]
    unsafe fn words(row: *const u8, step: usize) -> [__m512i; 3] {
        // SAFETY: the caller's promise.
        unsafe {
            let halves = row.add(Self::offset(step)).cast::<__m256i>();
            let front = _mm512_cvtph_ps(_mm256_loadu_si256(halves));
            let back = _mm512_cvtph_ps(_mm256_loadu_si256(halves.add(1)));
            let first = narrow(front, back);
            let front = _mm512_sub_ps(front, wide(_mm512_castsi512_si256(first)));
            let back = _mm512_sub_ps(back, wide(_mm512_extracti64x4_epi64::<1>(first)));
            let second = narrow(front, back);
            [first, second, second]
        }
    }
}

/// 32 values rounded to bf16 in their order. What lies below the smallest normal number becomes zero, as nothing that 16 bits
/// hold does.
#[inline(always)]
unsafe fn narrow(front: __m512, back: __m512) -> __m512i {
    // SAFETY: the caller's promise; both types are 512 bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(back, front)) }
}

/// 16 bf16 as f32.
#[inline(always)]
unsafe fn wide(halves: __m256i) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves))) }
}

pub(super) struct Bf16;

impl Parts for Bf16 {
    const STEP_BYTES: usize = 64;
    const COUNT: usize = 2;

    #[inline(always)]
    unsafe fn words(row: *const u8, step: usize) -> [__m512i; 3] {
        // SAFETY: the caller's promise.
        unsafe {
            let words = _mm512_loadu_si512(row.add(Self::offset(step)).cast());
            let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words));
            let odd = upper(_mm512_castsi512_ps(words));
            // zero, unless the value is no number
            let rest = joined([_mm512_sub_ps(even, even), _mm512_sub_ps(odd, odd)]);
            [words, rest, words]
        }
    }
}

pub(super) struct Nf4;

impl Parts for Nf4 {
    const STEP_BYTES: usize = nf4::BLOCK_BYTES / 2;
    const COUNT: usize = 3;

    #[inline(always)]
    unsafe fn words(row: *const u8, step: usize) -> [__m512i; 3] {
        // SAFETY: the caller's promise: the step is half a block, whose scale follows the codes of both halves.
        unsafe {
            let block = row.add(step / 2 * nf4::BLOCK_BYTES);
            let scale = _mm512_set1_ps(block.add(nf4::BLOCK / 2).cast::<f32>().read_unaligned());
            let values = _mm512_mul_ps(_mm512_loadu_ps(nf4::LEVELS.as_ptr()), scale);
            let first = rounded(values);
            let rest = _mm512_sub_ps(values, upper(first));
            let second = rounded(rest);
            let third = _mm512_sub_ps(rest, upper(second));
            let places = upper_halves(_mm512_cvtepu8_epi32(_mm_loadu_si128(block.add(step % 2 * 16).cast())));
            [
                _mm512_permutexvar_epi16(places, _mm512_castps_si512(first)),
                _mm512_permutexvar_epi16(places, _mm512_castps_si512(second)),
                _mm512_permutexvar_epi16(places, _mm512_castps_si512(third)),
            ]
        }
    }
}

/// Where among 32 halves those stand that are the upper ones of the values of two codes, the first of which is the upper one of a
/// byte.
#[inline(always)]
unsafe fn upper_halves(pairs: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let twice = _mm512_or_si512(_mm512_srli_epi32::<3>(pairs), _mm512_slli_epi32::<17>(pairs));
        _mm512_or_si512(_mm512_and_si512(twice, _mm512_set1_epi16(0x1e)), _mm512_set1_epi16(1))
    }
}

/// # Safety
/// The processor has AVX-512 F, as for all that follow.
#[inline(always)]
unsafe fn even_and_odd(front: __m512, back: __m512) -> Values {
    // SAFETY: the caller's promise.
    unsafe {
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
        [_mm512_permutex2var_ps(front, even, back), _mm512_permutex2var_ps(front, odd, back)]
    }
}

/// Three parts of every value.
#[inline(always)]
unsafe fn three(values: Values) -> [__m512i; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        let (first, rest) = part(values);
        let (second, rest) = part(rest);
        [first, second, joined(rest)]
    }
}

/// The words of values rounded to bf16, and what that leaves of the values.
///
/// What is no number may round to a number, but leaves what is none.
#[inline(always)]
unsafe fn part([even, odd]: Values) -> (__m512i, Values) {
    // SAFETY: the caller's promise.
    unsafe {
        let rounded = [rounded(even), rounded(odd)];
        let [even_upper, odd_upper] = [upper(rounded[0]), upper(rounded[1])];
        (joined(rounded), [_mm512_sub_ps(even, even_upper), _mm512_sub_ps(odd, odd_upper)])
    }
}

/// Bits whose upper halves are the value rounded to bf16, ties to even.
#[inline(always)]
unsafe fn rounded(value: __m512) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let bits = _mm512_castps_si512(value);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        _mm512_castsi512_ps(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd))
    }
}

/// The upper half of every value, zero in the lower one.
#[inline(always)]
unsafe fn upper(value: __m512) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let bits = _mm512_castps_si512(value);
        _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(0xffff_0000_u32 as i32)))
    }
}

/// The upper halves of even and odd values as one word.
#[inline(always)]
unsafe fn joined([even, odd]: Values) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(even));
        _mm512_mask_blend_epi16(0xaaaa_aaaa, low, _mm512_castps_si512(odd))
    }
}
