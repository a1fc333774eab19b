//! Vectors of sixteen f32, in the registers of each level, and the elements they are loaded from.

#![expect(
    unsafe_code,
    reason = "vectors are read and written through pointers, and levels have their instructions"
)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::kernels::cpu::attention::paged::layout::KvSlice;

/// Vector of sixteen f32.
///
/// # Safety
/// Every function needs the processor features that the implementation names, and sixteen elements behind its pointer.
pub(super) trait Vector: Copy {
    /// Accumulators that stay in registers beside the operands.
    const ACCUMULATORS: usize;

    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_bf16(from: *const u16) -> Self;
    unsafe fn load_int8(from: *const i8) -> Self;
    unsafe fn store(to: *mut f32, x: Self);
    /// `x * y + acc`
    unsafe fn mul_add(x: Self, y: Self, acc: Self) -> Self;
}

/// Element of keys or values.
pub(in super::super) trait KvElement: Copy + Sync {
    /// The element as f32.
    #[cfg(test)]
    fn to_f32(self) -> f32;

    /// The elements of `data` if they have this type.
    fn of(data: KvSlice<'_>) -> Option<&[Self]>;

    /// Sixteen elements as f32.
    ///
    /// # Safety
    /// As for [`Vector`].
    unsafe fn load<V: Vector>(from: *const Self) -> V;
}

impl KvElement for f32 {
    #[cfg(test)]
    fn to_f32(self) -> f32 {
        self
    }

    fn of(data: KvSlice<'_>) -> Option<&[Self]> {
        if let KvSlice::F32(data) = data { Some(data) } else { None }
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: as the caller promises.
        unsafe { V::load(from) }
    }
}

/// The bits of a bf16.
impl KvElement for u16 {
    #[cfg(test)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }

    fn of(data: KvSlice<'_>) -> Option<&[Self]> {
        if let KvSlice::Bf16(data) = data { Some(data) } else { None }
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: as the caller promises.
        unsafe { V::load_bf16(from) }
    }
}

impl KvElement for i8 {
    #[cfg(test)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }

    fn of(data: KvSlice<'_>) -> Option<&[Self]> {
        if let KvSlice::Int8(data) = data { Some(data) } else { None }
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: as the caller promises.
        unsafe { V::load_int8(from) }
    }
}

/// One register of AVX-512, F and BW.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

#[cfg(target_arch = "x86_64")]
impl Vector for Avx512 {
    const ACCUMULATORS: usize = 24;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { _mm512_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)))
        }
    }

    #[inline(always)]
    unsafe fn load_int8(from: *const i8) -> Self {
        // SAFETY: as the caller promises.
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self) {
        // SAFETY: as the caller promises.
        unsafe { _mm512_storeu_ps(to, x.0) }
    }

    #[inline(always)]
    unsafe fn mul_add(x: Self, y: Self, acc: Self) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { _mm512_fmadd_ps(x.0, y.0, acc.0) })
    }
}

/// Two registers of AVX2 with FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx2([__m256; 2]);

#[cfg(target_arch = "x86_64")]
impl Vector for Avx2 {
    const ACCUMULATORS: usize = 6;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as the caller promises.
        unsafe { Self([_mm256_setzero_ps(); 2]) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: as the caller promises.
        unsafe { Self([_mm256_set1_ps(x); 2]) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the caller promises.
        unsafe { Self([_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let eight = |from: *const u16| {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16))
            };
            Self([eight(from), eight(from.add(8))])
        }
    }

    #[inline(always)]
    unsafe fn load_int8(from: *const i8) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let eight =
                |from: *const i8| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())));
            Self([eight(from), eight(from.add(8))])
        }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self) {
        // SAFETY: as the caller promises.
        unsafe {
            _mm256_storeu_ps(to, x.0[0]);
            _mm256_storeu_ps(to.add(8), x.0[1]);
        }
    }

    #[inline(always)]
    unsafe fn mul_add(x: Self, y: Self, acc: Self) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let lower = _mm256_fmadd_ps(x.0[0], y.0[0], acc.0[0]);
            Self([lower, _mm256_fmadd_ps(x.0[1], y.0[1], acc.0[1])])
        }
    }
}

/// An array in portable Rust, for the baseline.
#[derive(Clone, Copy)]
pub(super) struct Scalar([f32; 16]);

impl Scalar {
    /// Queries whose sixteen lanes fit registers of four.
    pub(super) const MAX_QUERIES: usize = 2;
}

impl Vector for Scalar {
    const ACCUMULATORS: usize = 2;

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
        // SAFETY: as the caller promises.
        Self(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: as the caller promises.
        let bits = unsafe { from.cast::<[u16; 16]>().read_unaligned() };
        Self(bits.map(|bits| f32::from_bits(u32::from(bits) << 16)))
    }

    #[inline(always)]
    unsafe fn load_int8(from: *const i8) -> Self {
        // SAFETY: as the caller promises.
        let codes = unsafe { from.cast::<[i8; 16]>().read_unaligned() };
        Self(codes.map(f32::from))
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self) {
        // SAFETY: as the caller promises.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(x.0) }
    }

    #[inline(always)]
    unsafe fn mul_add(x: Self, y: Self, acc: Self) -> Self {
        Self(std::array::from_fn(|i| acc.0[i] + x.0[i] * y.0[i]))
    }
}
