//! Codes and scales of each dtype as vectors, from the layout of a super-block (`panel`).
//!
//! Closures are avoided: they are compiled without the target features and would pass vectors through memory.

use std::arch::x86_64::*;

use crate::dtype::WeightDtype;
use crate::kernels::cpu::quant::PANEL_ROWS;
use crate::kernels::cpu::quant::panel::{K_HEADER, K_MINS, K_SCALES, LINE, Q6_K_HEADER};

/// 64 bytes of codes: one quad of 16 rows, or two as nibbles.
pub(super) type Line = [u8; LINE];

/// Layout of a dtype in a super-block of a panel.
pub(super) trait PanelDtype {
    /// The dtype.
    const DTYPE: WeightDtype;

    /// Difference of a code and the number it stands for.
    const OFFSET: i32 = 0;

    /// Whether the first and the last 16 columns of a group have scales of their own.
    const HALF_GROUP_SCALES: bool = false;

    /// Whether groups have minima.
    const HAS_MINS: bool = false;

    /// Bytes of the header of a super-block of `groups` groups.
    fn header_bytes(groups: usize) -> usize;

    /// Lines of codes of a group.
    const CODE_LINES: usize = 4;

    /// Lines of high bits of a group, behind the code lines of all groups.
    const HIGH_BIT_LINES: usize = 0;

    /// Codes, as unsigned bytes, of the quads `index` and `index + 4` of a group; `index` is below 4.
    ///
    /// # Safety
    /// The processor has AVX-512 F and BW; there are [`CODE_LINES`](Self::CODE_LINES) lines at `lines` and
    /// [`HIGH_BIT_LINES`](Self::HIGH_BIT_LINES) at `high_bits`.
    unsafe fn quads(lines: *const Line, high_bits: *const Line, index: usize) -> [__m512i; 2];

    /// Super-block scales of the group scales and of the minima; zero for dtypes without them.
    ///
    /// # Safety
    /// The processor has AVX-512 F; the header of a super-block is at `header`.
    unsafe fn factors(header: *const u8) -> [__m512; 2];

    /// Scales of the two halves of a group, or the scale and the minimum of the whole group.
    ///
    /// # Safety
    /// As [`factors`](Self::factors); the super-block has this group.
    unsafe fn scales(header: *const u8, factors: [__m512; 2], group: usize) -> [__m512; 2];
}

pub(super) struct Q8_0;
pub(super) struct Q4_0;
pub(super) struct Q4K;
pub(super) struct Q5K;
pub(super) struct Q6K;

impl PanelDtype for Q8_0 {
    const DTYPE: WeightDtype = WeightDtype::Q8_0;
    const OFFSET: i32 = 128;
    const CODE_LINES: usize = 8;

    fn header_bytes(groups: usize) -> usize {
        2 * PANEL_ROWS * groups
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn factors(_: *const u8) -> [__m512; 2] {
        [_mm512_setzero_ps(); 2]
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(header: *const u8, _: [__m512; 2], group: usize) -> [__m512; 2] {
        // SAFETY: as the caller promises.
        [unsafe { load_f16(header.add(group * 2 * PANEL_ROWS)) }, _mm512_setzero_ps()]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn quads(lines: *const Line, _: *const Line, index: usize) -> [__m512i; 2] {
        let offset = _mm512_set1_epi8(-128);
        // SAFETY: as the caller promises; there are 8 lines.
        let (first, second) = unsafe { (load(lines.add(index)), load(lines.add(index + 4))) };
        [_mm512_xor_si512(first, offset), _mm512_xor_si512(second, offset)]
    }
}

impl PanelDtype for Q4_0 {
    const DTYPE: WeightDtype = WeightDtype::Q4_0;
    const OFFSET: i32 = 8;

    fn header_bytes(groups: usize) -> usize {
        Q8_0::header_bytes(groups)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn factors(header: *const u8) -> [__m512; 2] {
        // SAFETY: as the caller promises; the headers are alike.
        unsafe { Q8_0::factors(header) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(header: *const u8, factors: [__m512; 2], group: usize) -> [__m512; 2] {
        // SAFETY: as the caller promises; the headers are alike.
        unsafe { Q8_0::scales(header, factors, group) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn quads(lines: *const Line, _: *const Line, index: usize) -> [__m512i; 2] {
        // SAFETY: as the caller promises.
        unsafe { load_nibbles(lines.add(index)) }
    }
}

impl PanelDtype for Q4K {
    const DTYPE: WeightDtype = WeightDtype::Q4K;
    const HAS_MINS: bool = true;

    fn header_bytes(_: usize) -> usize {
        K_HEADER
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn factors(header: *const u8) -> [__m512; 2] {
        // SAFETY: as the caller promises.
        unsafe { [load_f16(header), load_f16(header.add(2 * PANEL_ROWS))] }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(header: *const u8, factors: [__m512; 2], group: usize) -> [__m512; 2] {
        // SAFETY: as the caller promises.
        let numbers =
            unsafe { [load_six_bits(header.add(K_SCALES), group), load_six_bits(header.add(K_MINS), group)] };
        let [scale, min] = [_mm512_cvtepu8_epi32(numbers[0]), _mm512_cvtepu8_epi32(numbers[1])];
        [
            _mm512_mul_ps(factors[0], _mm512_cvtepi32_ps(scale)),
            _mm512_mul_ps(factors[1], _mm512_cvtepi32_ps(min)),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn quads(lines: *const Line, high_bits: *const Line, index: usize) -> [__m512i; 2] {
        // SAFETY: as the caller promises; the lines are alike.
        unsafe { Q4_0::quads(lines, high_bits, index) }
    }
}

impl PanelDtype for Q5K {
    const DTYPE: WeightDtype = WeightDtype::Q5K;
    const HAS_MINS: bool = true;
    const HIGH_BIT_LINES: usize = 1;

    fn header_bytes(groups: usize) -> usize {
        Q4K::header_bytes(groups)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn factors(header: *const u8) -> [__m512; 2] {
        // SAFETY: as the caller promises; the headers are alike.
        unsafe { Q4K::factors(header) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(header: *const u8, factors: [__m512; 2], group: usize) -> [__m512; 2] {
        // SAFETY: as the caller promises; the headers are alike.
        unsafe { Q4K::scales(header, factors, group) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn quads(lines: *const Line, high_bits: *const Line, index: usize) -> [__m512i; 2] {
        // SAFETY: as the caller promises.
        let ([low, high], fifth) = unsafe { (load_nibbles(lines.add(index)), load(high_bits)) };
        // bits `index` and `index + 4` move to bit 4
        let to_low = _mm512_sll_epi16(fifth, _mm_cvtsi32_si128(4 - index as i32));
        let to_high = _mm512_srl_epi16(fifth, _mm_cvtsi32_si128(index as i32));
        [with_bits(low, to_low, 0x10), with_bits(high, to_high, 0x10)]
    }
}

impl PanelDtype for Q6K {
    const DTYPE: WeightDtype = WeightDtype::Q6K;
    const OFFSET: i32 = 32;
    const HALF_GROUP_SCALES: bool = true;
    const HIGH_BIT_LINES: usize = 2;

    fn header_bytes(_: usize) -> usize {
        Q6_K_HEADER
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn factors(header: *const u8) -> [__m512; 2] {
        // SAFETY: as the caller promises.
        unsafe { [load_f16(header); 2] }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(header: *const u8, factors: [__m512; 2], group: usize) -> [__m512; 2] {
        // SAFETY: as the caller promises.
        let (first, last) = unsafe {
            let numbers = header.add(2 * PANEL_ROWS + group * 2 * PANEL_ROWS);
            (load_bytes(numbers), load_bytes(numbers.add(PANEL_ROWS)))
        };
        [
            _mm512_mul_ps(factors[0], _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(first))),
            _mm512_mul_ps(factors[1], _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(last))),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn quads(lines: *const Line, high_bits: *const Line, index: usize) -> [__m512i; 2] {
        // SAFETY: as the caller promises.
        let ([low, high], [a, b]) =
            unsafe { (load_nibbles(lines.add(index)), [load(high_bits), load(high_bits.add(1))]) };
        // bits `2 index` and `2 index + 1` move to bits 4 and 5
        let [a, b] = match index {
            0 => [_mm512_slli_epi16::<4>(a), _mm512_slli_epi16::<4>(b)],
            1 => [_mm512_slli_epi16::<2>(a), _mm512_slli_epi16::<2>(b)],
            2 => [a, b],
            _ => [_mm512_srli_epi16::<2>(a), _mm512_srli_epi16::<2>(b)],
        };
        [with_bits(low, a, 0x30), with_bits(high, b, 0x30)]
    }
}

/// A line.
///
/// # Safety
/// There is a line at `line`, and the processor has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(line: *const Line) -> __m512i {
    // SAFETY: as the caller promises.
    unsafe { _mm512_loadu_si512(line.cast()) }
}

/// Low and high nibbles of a line.
///
/// # Safety
/// There is a line at `line`, and the processor has the features.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load_nibbles(line: *const Line) -> [__m512i; 2] {
    // SAFETY: as the caller promises.
    let (line, mask) = (unsafe { load(line) }, _mm512_set1_epi8(0xf));
    [_mm512_and_si512(line, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(line), mask)]
}

/// `codes` with the bits `mask` of `bits` set.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn with_bits(codes: __m512i, bits: __m512i, mask: i8) -> __m512i {
    const A_OR_B_AND_C: i32 = 0xf0 | (0xcc & 0xaa);
    _mm512_ternarylogic_epi32::<A_OR_B_AND_C>(codes, bits, _mm512_set1_epi8(mask))
}

/// 16 f16 as f32.
///
/// # Safety
/// There are 32 bytes at `at`, and the processor has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_f16(at: *const u8) -> __m512 {
    // SAFETY: as the caller promises.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
}

/// 16 bytes.
///
/// # Safety
/// There are 16 bytes at `at`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_bytes(at: *const u8) -> __m128i {
    // SAFETY: as the caller promises.
    unsafe { _mm_loadu_si128(at.cast()) }
}

/// 6-bit numbers of a group; three lines hold four groups (`panel`).
///
/// # Safety
/// There are the lines of all groups at `at`, and the processor has the features.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load_six_bits(at: *const u8, group: usize) -> __m128i {
    // SAFETY: as the caller promises.
    let [a, b, c] = unsafe {
        let lines = at.add(group / 4 * 3 * PANEL_ROWS);
        [load_bytes(lines), load_bytes(lines.add(PANEL_ROWS)), load_bytes(lines.add(2 * PANEL_ROWS))]
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
