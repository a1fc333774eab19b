//! Sixteen f32 side by side, as each level holds them.

#![expect(
    unsafe_code,
    reason = "vectors are read and written through pointers, and levels have their instructions"
)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::kernels::cpu::attention::paged::layout::Numbers;

/// Sixteen f32.
///
/// # Safety
/// Every function needs the processor's features that the implementation names, and sixteen numbers behind its pointer.
pub(super) trait Lanes: Copy {
    /// Sums that stay in registers beside the operands.
    const SUMS: usize;

    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_bf16(from: *const u16) -> Self;
    unsafe fn load_int8(from: *const i8) -> Self;
    unsafe fn store(to: *mut f32, x: Self);
    /// `x * y + sum`
    unsafe fn multiply_add(x: Self, y: Self, sum: Self) -> Self;
}

/// A number that is widened to f32.
pub(in super::super) trait Element: Copy + Sync {
    /// The number as f32.
    #[cfg(test)]
    fn widened(self) -> f32;

    /// `numbers` where they have this form.
    fn of(numbers: Numbers<'_>) -> Option<&[Self]>;

    /// Sixteen numbers as f32.
    ///
    /// # Safety
    /// As for [`Lanes`].
    unsafe fn load<L: Lanes>(from: *const Self) -> L;
}

impl Element for f32 {
    #[cfg(test)]
    fn widened(self) -> f32 {
        self
    }

    fn of(numbers: Numbers<'_>) -> Option<&[Self]> {
        if let Numbers::F32(numbers) = numbers { Some(numbers) } else { None }
    }

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load(from) }
    }
}

/// The upper half of the bits of an f32.
impl Element for u16 {
    #[cfg(test)]
    fn widened(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }

    fn of(numbers: Numbers<'_>) -> Option<&[Self]> {
        if let Numbers::Bf16(numbers) = numbers { Some(numbers) } else { None }
    }

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_bf16(from) }
    }
}

impl Element for i8 {
    #[cfg(test)]
    fn widened(self) -> f32 {
        f32::from(self)
    }

    fn of(numbers: Numbers<'_>) -> Option<&[Self]> {
        if let Numbers::Int8(numbers) = numbers { Some(numbers) } else { None }
    }

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_int8(from) }
    }
}

/// One register of AVX-512, F and BW.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx512 {
    const SUMS: usize = 24;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32(halves, 16)))
        }
    }

    #[inline(always)]
    unsafe fn load_int8(from: *const i8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to, x.0) }
    }

    #[inline(always)]
    unsafe fn multiply_add(x: Self, y: Self, sum: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_fmadd_ps(x.0, y.0, sum.0) })
    }
}

/// Two registers of AVX2 with FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx2([__m256; 2]);

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx2 {
    const SUMS: usize = 6;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self([_mm256_setzero_ps(); 2]) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self([_mm256_set1_ps(x); 2]) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self([_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let eight = |from: *const u16| {
                let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32(halves, 16))
            };
            Self([eight(from), eight(from.add(8))])
        }
    }

    #[inline(always)]
    unsafe fn load_int8(from: *const i8) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let eight =
                |from: *const i8| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())));
            Self([eight(from), eight(from.add(8))])
        }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self) {
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(to, x.0[0]);
            _mm256_storeu_ps(to.add(8), x.0[1]);
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(x: Self, y: Self, sum: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let lower = _mm256_fmadd_ps(x.0[0], y.0[0], sum.0[0]);
            Self([lower, _mm256_fmadd_ps(x.0[1], y.0[1], sum.0[1])])
        }
    }
}

/// What every processor has: no features are needed.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; 16]);

impl Plain {
    /// Queries that leave sums of sixteen lanes in registers of four.
    pub(super) const QUERIES: usize = 2;
}

impl Lanes for Plain {
    const SUMS: usize = 2;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 16])
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 16])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        let halves = unsafe { from.cast::<[u16; 16]>().read_unaligned() };
        Self(halves.map(|half| f32::from_bits(u32::from(half) << 16)))
    }

    #[inline(always)]
    unsafe fn load_int8(from: *const i8) -> Self {
        // SAFETY: the caller's promise.
        let numbers = unsafe { from.cast::<[i8; 16]>().read_unaligned() };
        Self(numbers.map(f32::from))
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(x.0) }
    }

    #[inline(always)]
    unsafe fn multiply_add(x: Self, y: Self, sum: Self) -> Self {
        Self(std::array::from_fn(|i| sum.0[i] + x.0[i] * y.0[i]))
    }
}
