//! The forms of weights as vectors: how their codes and scales lie in a span (`panel`).
//!
//! No closures here: what is called in between does not have the instructions, and would pass vectors through memory.

use std::arch::x86_64::*;

use crate::dtype::WeightDtype;
use crate::kernels::cpu::quant::LANES;
use crate::kernels::cpu::quant::panel::{K_HEAD, K_MINS, K_SCALES, LINE, Q6_K_HEAD};

/// 64 bytes of codes: a quad of 16 rows, or two of nibbles.
pub(super) type Line = [u8; LINE];

/// How the codes of a form lie in a span of a panel.
pub(super) trait Form {
    const FORMAT: WeightDtype;

    /// What codes are above the numbers they stand for.
    const OFFSET: i32 = 0;

    /// Whether the first and the last 16 columns of a group have scales of their own.
    const HALVES: bool = false;

    const MINS: bool = false;

    /// Bytes before the codes of a span of `groups` groups.
    fn head_bytes(groups: usize) -> usize;

    /// Lines of a group, and those of further bits that follow all groups.
    const LINES: usize = 4;
    const MORE: usize = 0;

    /// The codes, none negative, of the quads `index` and `index + 4` of a group, for `index` below 4.
    ///
    /// # Safety
    /// The processor has AVX-512 F and BW; there are [`LINES`](Self::LINES) lines at `lines` and
    /// [`MORE`](Self::MORE) at `more`.
    unsafe fn quads(lines: *const Line, more: *const Line, index: usize) -> [__m512i; 2];

    /// What all scales of a span are multiplied with, where there is such a thing: that of scales and that of minima.
    ///
    /// # Safety
    /// The processor has AVX-512 F; the head of a span is at `head`.
    unsafe fn factors(head: *const u8) -> [__m512; 2];

    /// The scales of the halves of a group, or its scale and its minimum where halves have none of their own.
    ///
    /// # Safety
    /// As [`factors`](Self::factors); the span has this group.
    unsafe fn scales(head: *const u8, factors: [__m512; 2], group: usize) -> [__m512; 2];
}

pub(super) struct Q8_0;
pub(super) struct Q4_0;
pub(super) struct Q4K;
pub(super) struct Q5K;
pub(super) struct Q6K;

impl Form for Q8_0 {
    const FORMAT: WeightDtype = WeightDtype::Q8_0;
    const OFFSET: i32 = 128;
    const LINES: usize = 8;

    fn head_bytes(groups: usize) -> usize {
        2 * LANES * groups
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn factors(_: *const u8) -> [__m512; 2] {
        [_mm512_setzero_ps(); 2]
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(head: *const u8, _: [__m512; 2], group: usize) -> [__m512; 2] {
        // SAFETY: the caller's.
        [unsafe { halves(head.add(group * 2 * LANES)) }, _mm512_setzero_ps()]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn quads(lines: *const Line, _: *const Line, index: usize) -> [__m512i; 2] {
        let offset = _mm512_set1_epi8(-128);
        // SAFETY: the caller's; there are 8 lines.
        let (first, second) = unsafe { (load(lines.add(index)), load(lines.add(index + 4))) };
        [_mm512_xor_si512(first, offset), _mm512_xor_si512(second, offset)]
    }
}

impl Form for Q4_0 {
    const FORMAT: WeightDtype = WeightDtype::Q4_0;
    const OFFSET: i32 = 8;

    fn head_bytes(groups: usize) -> usize {
        Q8_0::head_bytes(groups)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn factors(head: *const u8) -> [__m512; 2] {
        // SAFETY: the caller's; the heads are alike.
        unsafe { Q8_0::factors(head) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(head: *const u8, factors: [__m512; 2], group: usize) -> [__m512; 2] {
        // SAFETY: the caller's; the heads are alike.
        unsafe { Q8_0::scales(head, factors, group) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn quads(lines: *const Line, _: *const Line, index: usize) -> [__m512i; 2] {
        // SAFETY: the caller's.
        unsafe { nibbles(lines.add(index)) }
    }
}

impl Form for Q4K {
    const FORMAT: WeightDtype = WeightDtype::Q4K;
    const MINS: bool = true;

    fn head_bytes(_: usize) -> usize {
        K_HEAD
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn factors(head: *const u8) -> [__m512; 2] {
        // SAFETY: the caller's.
        unsafe { [halves(head), halves(head.add(2 * LANES))] }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(head: *const u8, factors: [__m512; 2], group: usize) -> [__m512; 2] {
        // SAFETY: the caller's.
        let numbers = unsafe { [six_bits(head.add(K_SCALES), group), six_bits(head.add(K_MINS), group)] };
        let [scale, min] = [_mm512_cvtepu8_epi32(numbers[0]), _mm512_cvtepu8_epi32(numbers[1])];
        [
            _mm512_mul_ps(factors[0], _mm512_cvtepi32_ps(scale)),
            _mm512_mul_ps(factors[1], _mm512_cvtepi32_ps(min)),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn quads(lines: *const Line, more: *const Line, index: usize) -> [__m512i; 2] {
        // SAFETY: the caller's; the lines are alike.
        unsafe { Q4_0::quads(lines, more, index) }
    }
}

impl Form for Q5K {
    const FORMAT: WeightDtype = WeightDtype::Q5K;
    const MINS: bool = true;
    const MORE: usize = 1;

    fn head_bytes(groups: usize) -> usize {
        Q4K::head_bytes(groups)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn factors(head: *const u8) -> [__m512; 2] {
        // SAFETY: the caller's; the heads are alike.
        unsafe { Q4K::factors(head) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(head: *const u8, factors: [__m512; 2], group: usize) -> [__m512; 2] {
        // SAFETY: the caller's; the heads are alike.
        unsafe { Q4K::scales(head, factors, group) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn quads(lines: *const Line, more: *const Line, index: usize) -> [__m512i; 2] {
        // SAFETY: the caller's.
        let ([low, high], fifth) = unsafe { (nibbles(lines.add(index)), load(more)) };
        // bit `index` comes to bit 4, and bit `index + 4` too
        let to_low = _mm512_sll_epi16(fifth, _mm_cvtsi32_si128(4 - index as i32));
        let to_high = _mm512_srl_epi16(fifth, _mm_cvtsi32_si128(index as i32));
        [with_bits(low, to_low, 0x10), with_bits(high, to_high, 0x10)]
    }
}

impl Form for Q6K {
    const FORMAT: WeightDtype = WeightDtype::Q6K;
    const OFFSET: i32 = 32;
    const HALVES: bool = true;
    const MORE: usize = 2;

    fn head_bytes(_: usize) -> usize {
        Q6_K_HEAD
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn factors(head: *const u8) -> [__m512; 2] {
        // SAFETY: the caller's.
        unsafe { [halves(head); 2] }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(head: *const u8, factors: [__m512; 2], group: usize) -> [__m512; 2] {
        // SAFETY: the caller's.
        let (first, last) = unsafe {
            let numbers = head.add(2 * LANES + group * 2 * LANES);
            (bytes(numbers), bytes(numbers.add(LANES)))
        };
        [
            _mm512_mul_ps(factors[0], _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(first))),
            _mm512_mul_ps(factors[1], _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(last))),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn quads(lines: *const Line, more: *const Line, index: usize) -> [__m512i; 2] {
        // SAFETY: the caller's.
        let ([low, high], [a, b]) = unsafe { (nibbles(lines.add(index)), [load(more), load(more.add(1))]) };
        // bits `2 index` and `2 index + 1` come to bits 4 and 5
        let [of_low, of_high] = match index {
            0 => [_mm512_slli_epi16::<4>(a), _mm512_slli_epi16::<4>(b)],
            1 => [_mm512_slli_epi16::<2>(a), _mm512_slli_epi16::<2>(b)],
            2 => [a, b],
            _ => [_mm512_srli_epi16::<2>(a), _mm512_srli_epi16::<2>(b)],
        };
        [with_bits(low, of_low, 0x30), with_bits(high, of_high, 0x30)]
    }
}

/// # Safety
/// There is a line at `line`, and the processor has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(line: *const Line) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_loadu_si512(line.cast()) }
}

/// The low and the high nibbles of a line.
///
/// # Safety
/// There is a line at `line`, and the processor has the features.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn nibbles(line: *const Line) -> [__m512i; 2] {
    // SAFETY: the caller's.
    let (line, mask) = (unsafe { load(line) }, _mm512_set1_epi8(0xf));
    [_mm512_and_si512(line, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(line), mask)]
}

/// `codes` and the bits `mask` of `bits`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn with_bits(codes: __m512i, bits: __m512i, mask: i8) -> __m512i {
    const A_OR_B_AND_C: i32 = 0xf0 | (0xcc & 0xaa);
    _mm512_ternarylogic_epi32::<A_OR_B_AND_C>(codes, bits, _mm512_set1_epi8(mask))
}

/// 16 halves.
///
/// # Safety
/// There are 32 bytes at `at`, and the processor has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn halves(at: *const u8) -> __m512 {
    // SAFETY: the caller's.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
}

/// # Safety
/// There are 16 bytes at `at`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn bytes(at: *const u8) -> __m128i {
    // SAFETY: the caller's.
    unsafe { _mm_loadu_si128(at.cast()) }
}

/// The 6-bit numbers of a group, of which three lines hold those of four (`panel`).
///
/// # Safety
/// There are the lines of all groups at `at`, and the processor has the features.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn six_bits(at: *const u8, group: usize) -> __m128i {
    // SAFETY: the caller's.
    let [a, b, c] = unsafe {
        let lines = at.add(group / 4 * 3 * LANES);
        [bytes(lines), bytes(lines.add(LANES)), bytes(lines.add(2 * LANES))]
    };
    let low = _mm_set1_epi8(63);
    match group % 4 {
        0 => _mm_and_si128(a, low),
        1 => _mm_and_si128(b, low),
        2 => _mm_and_si128(c, low),
        _ => {
            let a = _mm_and_si128(_mm_srli_epi16::<6>(a), _mm_set1_epi8(3));
            let b = _mm_and_si128(_mm_srli_epi16::<4>(b), _mm_set1_epi8(12));
            let c = _mm_and_si128(_mm_srli_epi16::<2>(c), _mm_set1_epi8(48));
            _mm_or_si128(_mm_or_si128(a, b), c)
        }
    }
}
