//! Weight values of each dtype split into bf16 parts, 32 of one row at a time.

use std::arch::x86_64::*;

use crate::kernels::cpu::quantize::nf4;

/// Split of the values of a dtype into words of bf16 parts, two values a word.
///
/// The parts are those of [`PackFormat::Bf16x3`](crate::kernels::cpu::gemm::PackFormat), except for bits below the smallest
/// normal number, which the matrix unit reads as zero.
pub(super) trait SplitWeight {
    /// Bytes of a step of 32 values.
    const STEP_BYTES: usize;
    /// Parts of a value that are not always zero. Two at least, so that an infinity gives NaN, as in `gemm`.
    const PARTS: usize;

    /// First byte of step `step` in a row.
    #[inline(always)]
    fn offset(step: usize) -> usize {
        step * Self::STEP_BYTES
    }

    /// Words `[row][part]` of step `step` of two rows.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ, VL and BF16, and the step lies in the rows.
    unsafe fn words(first: *const u8, second: *const u8, step: usize) -> [[__m512i; 3]; 2];

    /// Prefetches the bytes of a step.
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

/// [`SplitWeight::words`] for dtypes whose rows are split independently.
macro_rules! row_by_row {
    ($dtype:ty) => {
        #[inline(always)]
        unsafe fn words(first: *const u8, second: *const u8, step: usize) -> [[__m512i; 3]; 2] {
            // SAFETY: as the caller promises.
            unsafe { [<$dtype>::row_words(first, step), <$dtype>::row_words(second, step)] }
        }
    };
}

pub(super) struct SplitF32;

impl SplitWeight for SplitF32 {
    const STEP_BYTES: usize = 128;
    const PARTS: usize = 3;
    row_by_row!(SplitF32);
}

impl SplitF32 {
    /// # Safety
    /// As for [`SplitWeight::words`].
    #[inline(always)]
    pub(super) unsafe fn row_words(row: *const u8, step: usize) -> [__m512i; 3] {
        // SAFETY: as the caller promises.
        unsafe {
            let values = row.add(Self::offset(step)).cast::<f32>();
            split3(_mm512_loadu_ps(values), _mm512_loadu_ps(values.add(16)))
        }
    }
}

pub(super) struct SplitF16;

impl SplitWeight for SplitF16 {
    const STEP_BYTES: usize = 64;
    const PARTS: usize = 2;
    row_by_row!(SplitF16);
}

impl SplitF16 {
    /// # Safety
    /// As for [`SplitWeight::words`].
    #[inline(always)]
    unsafe fn row_words(row: *const u8, step: usize) -> [__m512i; 3] {
        // SAFETY: as the caller promises.
        unsafe {
            let f16 = row.add(Self::offset(step)).cast::<__m256i>();
            let front = _mm512_cvtph_ps(_mm256_loadu_si256(f16));
            let back = _mm512_cvtph_ps(_mm256_loadu_si256(f16.add(1)));
            let (high, front, back) = split_part(front, back);
            let middle = to_bf16(front, back);
            [high, middle, middle]
        }
    }
}

pub(super) struct SplitBf16;

impl SplitWeight for SplitBf16 {
    const STEP_BYTES: usize = 64;
    const PARTS: usize = 2;
    row_by_row!(SplitBf16);
}

impl SplitBf16 {
    /// # Safety
    /// As for [`SplitWeight::words`].
    #[inline(always)]
    unsafe fn row_words(row: *const u8, step: usize) -> [__m512i; 3] {
        // SAFETY: as the caller promises.
        unsafe {
            let words = _mm512_loadu_si512(row.add(Self::offset(step)).cast());
            let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words));
            let odd = upper_half(words);
            // zero, unless the value is infinite or NaN
            let rest = join_halves(_mm512_sub_ps(even, even), _mm512_sub_ps(odd, odd));
            [words, rest, words]
        }
    }
}

pub(super) struct SplitNf4;

impl SplitWeight for SplitNf4 {
    const STEP_BYTES: usize = nf4::BLOCK_BYTES / 2;
    const PARTS: usize = 3;

    /// The 16 values of the code book of both rows are split together; codes then select among the parts.
    #[inline(always)]
    unsafe fn words(first: *const u8, second: *const u8, step: usize) -> [[__m512i; 3]; 2] {
        // SAFETY: as the caller promises: the step is half a block, whose scale follows the codes of both halves.
        unsafe {
            let first = first.add(step / 2 * nf4::BLOCK_BYTES);
            let second = second.add(step / 2 * nf4::BLOCK_BYTES);
            let codebook = _mm512_loadu_ps(nf4::CODEBOOK.as_ptr());
            let parts = split3(_mm512_mul_ps(codebook, scale(first)), _mm512_mul_ps(codebook, scale(second)));
            let second_codes = _mm512_or_si512(codes(second, step), _mm512_set1_epi16(16));
            [lookup(parts, codes(first, step)), lookup(parts, second_codes)]
        }
    }
}

/// Scale of a block of NF4.
///
/// # Safety
/// A block lies at `block`; the processor has AVX-512 F.
#[inline(always)]
unsafe fn scale(block: *const u8) -> __m512 {
    // SAFETY: as the caller promises: the scale follows the codes.
    unsafe { _mm512_set1_ps(block.add(nf4::BLOCK / 2).cast::<f32>().read_unaligned()) }
}

/// Codes of step `step`, half a block of NF4, as 16-bit lanes; the upper half of a byte comes first.
///
/// # Safety
/// As for [`scale`].
#[inline(always)]
unsafe fn codes(block: *const u8, step: usize) -> __m512i {
    // SAFETY: as the caller promises: half a block is 16 bytes.
    unsafe {
        let pairs = _mm512_cvtepu8_epi32(_mm_loadu_si128(block.add(step % 2 * 16).cast()));
        let both = _mm512_or_si512(_mm512_srli_epi32::<4>(pairs), _mm512_slli_epi32::<16>(pairs));
        _mm512_and_si512(both, _mm512_set1_epi16(0xf))
    }
}

/// Value of each part that a code selects.
///
/// # Safety
/// As for [`split3`].
#[inline(always)]
unsafe fn lookup([high, middle, low]: [__m512i; 3], codes: __m512i) -> [__m512i; 3] {
    // SAFETY: as the caller promises.
    unsafe {
        [
            _mm512_permutexvar_epi16(codes, high),
            _mm512_permutexvar_epi16(codes, middle),
            _mm512_permutexvar_epi16(codes, low),
        ]
    }
}

/// High, middle and low parts of 32 values.
///
/// # Safety
/// The processor has AVX-512 F, BW and BF16.
#[inline(always)]
unsafe fn split3(front: __m512, back: __m512) -> [__m512i; 3] {
    // SAFETY: as the caller promises.
    unsafe {
        let (high, front, back) = split_part(front, back);
        let (middle, front, back) = split_part(front, back);
        [high, middle, to_bf16(front, back)]
    }
}

/// 32 values rounded to bf16, in order, and the remainders; NaN where a value is infinite or NaN.
///
/// # Safety
/// As for [`split3`].
#[inline(always)]
unsafe fn split_part(front: __m512, back: __m512) -> (__m512i, __m512, __m512) {
    // SAFETY: as the caller promises.
    unsafe {
        let words = to_bf16(front, back);
        let front = _mm512_sub_ps(front, bf16_to_f32(_mm512_castsi512_si256(words)));
        let back = _mm512_sub_ps(back, bf16_to_f32(_mm512_extracti64x4_epi64::<1>(words)));
        (words, front, back)
    }
}

/// 32 values rounded to bf16, in order. Subnormals become zero, as the matrix unit reads them.
///
/// # Safety
/// As for [`split3`].
#[inline(always)]
unsafe fn to_bf16(front: __m512, back: __m512) -> __m512i {
    // SAFETY: as the caller promises; both types are 512 bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(back, front)) }
}

/// 16 bf16 as f32.
///
/// # Safety
/// As for [`split3`].
#[inline(always)]
unsafe fn bf16_to_f32(bf16: __m256i) -> __m512 {
    // SAFETY: as the caller promises.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bf16))) }
}

/// Upper half of every word, with zero in the lower one.
///
/// # Safety
/// As for [`split3`].
#[inline(always)]
unsafe fn upper_half(words: __m512i) -> __m512 {
    // SAFETY: as the caller promises.
    unsafe { _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32 as i32))) }
}

/// Words of the upper halves of `even`, in their lower half, and of `odd`.
///
/// # Safety
/// As for [`split3`].
#[inline(always)]
unsafe fn join_halves(even: __m512, odd: __m512) -> __m512i {
    // SAFETY: as the caller promises.
    unsafe {
        let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(even));
        _mm512_mask_blend_epi16(0xaaaa_aaaa, low, _mm512_castps_si512(odd))
    }
}
