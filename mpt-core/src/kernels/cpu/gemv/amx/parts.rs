//! Values of a weight, in the form it is stored in, as bf16 parts: 32 of one row at a time.

use std::arch::x86_64::*;

use crate::kernels::cpu::quantize::nf4;

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

    /// The words of step `step` of two rows.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ, VL and BF16, and the step lies in the rows.
    unsafe fn words(first: *const u8, second: *const u8, step: usize) -> [[__m512i; 3]; 2];

    /// Asks for the bytes of a step.
    ///
    /// # Safety
    /// The processor has SSE.
    #[inline(always)]
    unsafe fn prefetch(row: *const u8, step: usize) {
        for line in (0..Self::STEP_BYTES).step_by(64) {
            // SAFETY: a hint about an address, which need not be valid.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(Self::offset(step) + line).cast()) };
        }
    }
}

/// Forms of which two rows share nothing.
macro_rules! row_by_row {
    ($form:ty) => {
        #[inline(always)]
        unsafe fn words(first: *const u8, second: *const u8, step: usize) -> [[__m512i; 3]; 2] {
            // SAFETY: the caller's promise.
            unsafe { [<$form>::row_words(first, step), <$form>::row_words(second, step)] }
        }
    };
}

pub(super) struct F32;

impl Parts for F32 {
    const STEP_BYTES: usize = 128;
    const COUNT: usize = 3;
    row_by_row!(F32);
}

impl F32 {
    /// # Safety
    /// As for [`Parts::words`].
    #[inline(always)]
    pub(super) unsafe fn row_words(row: *const u8, step: usize) -> [__m512i; 3] {
        // SAFETY: the caller's promise.
        unsafe {
            let values = row.add(Self::offset(step)).cast::<f32>();
            three(_mm512_loadu_ps(values), _mm512_loadu_ps(values.add(16)))
        }
    }
}

pub(super) struct F16;

impl Parts for F16 {
    const STEP_BYTES: usize = 64;
    const COUNT: usize = 2;
    row_by_row!(F16);
}

impl F16 {
    /// # Safety
    /// As for [`Parts::words`].
    #[inline(always)]
    unsafe fn row_words(row: *const u8, step: usize) -> [__m512i; 3] {
        // SAFETY: the caller's promise.
        unsafe {
            let halves = row.add(Self::offset(step)).cast::<__m256i>();
            let front = _mm512_cvtph_ps(_mm256_loadu_si256(halves));
            let back = _mm512_cvtph_ps(_mm256_loadu_si256(halves.add(1)));
            let (first, front, back) = part(front, back);
            let second = narrow(front, back);
            [first, second, second]
        }
    }
}

pub(super) struct Bf16;

impl Parts for Bf16 {
    const STEP_BYTES: usize = 64;
    const COUNT: usize = 2;
    row_by_row!(Bf16);
}

impl Bf16 {
    /// # Safety
    /// As for [`Parts::words`].
    #[inline(always)]
    unsafe fn row_words(row: *const u8, step: usize) -> [__m512i; 3] {
        // SAFETY: the caller's promise.
        unsafe {
            let words = _mm512_loadu_si512(row.add(Self::offset(step)).cast());
            let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words));
            let odd = upper(words);
            // zero, unless the value is no number
            let rest = joined(_mm512_sub_ps(even, even), _mm512_sub_ps(odd, odd));
            [words, rest, words]
        }
    }
}

pub(super) struct Nf4;

impl Parts for Nf4 {
    const STEP_BYTES: usize = nf4::BLOCK_BYTES / 2;
    const COUNT: usize = 3;

    /// The levels of both rows become parts together; then codes choose among them.
    #[inline(always)]
    unsafe fn words(first: *const u8, second: *const u8, step: usize) -> [[__m512i; 3]; 2] {
        // SAFETY: the caller's promise: the step is half a block, whose scale follows the codes of both halves.
        unsafe {
            let first = first.add(step / 2 * nf4::BLOCK_BYTES);
            let second = second.add(step / 2 * nf4::BLOCK_BYTES);
            let levels = _mm512_loadu_ps(nf4::LEVELS.as_ptr());
            let parts = three(_mm512_mul_ps(levels, scale(first)), _mm512_mul_ps(levels, scale(second)));
            let of_second = _mm512_or_si512(codes(second, step), _mm512_set1_epi16(16));
            [chosen(parts, codes(first, step)), chosen(parts, of_second)]
        }
    }
}

/// The scale of a block of NF4.
#[inline(always)]
unsafe fn scale(block: *const u8) -> __m512 {
    // SAFETY: the caller's promise: the scale follows the codes.
    unsafe { _mm512_set1_ps(block.add(nf4::BLOCK / 2).cast::<f32>().read_unaligned()) }
}

/// The codes of half a block of NF4 in order, the first of which is the upper one of a byte.
#[inline(always)]
unsafe fn codes(block: *const u8, step: usize) -> __m512i {
    // SAFETY: the caller's promise: half a block is 16 bytes.
    unsafe {
        let pairs = _mm512_cvtepu8_epi32(_mm_loadu_si128(block.add(step % 2 * 16).cast()));
        let both = _mm512_or_si512(_mm512_srli_epi32::<4>(pairs), _mm512_slli_epi32::<16>(pairs));
        _mm512_and_si512(both, _mm512_set1_epi16(0xf))
    }
}

/// Those of 32 values of each part that codes choose.
#[inline(always)]
unsafe fn chosen([first, second, third]: [__m512i; 3], codes: __m512i) -> [__m512i; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        [
            _mm512_permutexvar_epi16(codes, first),
            _mm512_permutexvar_epi16(codes, second),
            _mm512_permutexvar_epi16(codes, third),
        ]
    }
}

/// Three parts of 32 values.
///
/// # Safety
/// The processor has AVX-512 F, BW and BF16, as for all that follow.
#[inline(always)]
unsafe fn three(front: __m512, back: __m512) -> [__m512i; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        let (first, front, back) = part(front, back);
        let (second, front, back) = part(front, back);
        [first, second, narrow(front, back)]
    }
}

/// 32 values rounded to bf16 in their order, and what that leaves of them. Where a value is none, nothing is left that is one.
#[inline(always)]
unsafe fn part(front: __m512, back: __m512) -> (__m512i, __m512, __m512) {
    // SAFETY: the caller's promise.
    unsafe {
        let words = narrow(front, back);
        let front = _mm512_sub_ps(front, wide(_mm512_castsi512_si256(words)));
        let back = _mm512_sub_ps(back, wide(_mm512_extracti64x4_epi64::<1>(words)));
        (words, front, back)
    }
}

/// 32 values rounded to bf16 in their order. What lies below the smallest normal number becomes zero, which the matrix unit takes
/// it for.
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

/// The upper half of every word, zero in the lower one.
#[inline(always)]
unsafe fn upper(words: __m512i) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32 as i32))) }
}

/// The upper halves of even and odd values as one word.
#[inline(always)]
unsafe fn joined(even: __m512, odd: __m512) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(even));
        _mm512_mask_blend_epi16(0xaaaa_aaaa, low, _mm512_castps_si512(odd))
    }
}
