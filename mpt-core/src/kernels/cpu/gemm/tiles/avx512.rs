//! Patches with AVX-512: 8 rows x 48 columns of sums.

#![expect(unsafe_code, reason = "vector instructions over the pointers of a patch")]

use std::arch::x86_64::*;

use super::Patch;
use crate::kernels::cpu::gemm::pack::SIDE;

/// What a word of 32 bits holds and how it is multiplied.
trait Word {
    /// `sum + left right`.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn multiply_add(sum: __m512, left: __m512i, right: __m512i) -> __m512;
}

/// One f32.
struct Single;

impl Word for Single {
    #[inline(always)]
    unsafe fn multiply_add(sum: __m512, left: __m512i, right: __m512i) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_fmadd_ps(_mm512_castsi512_ps(left), _mm512_castsi512_ps(right), sum) }
    }
}

/// Two bf16, multiplied by the instruction for pairs.
struct Pair;

impl Word for Pair {
    #[inline(always)]
    unsafe fn multiply_add(sum: __m512, left: __m512i, right: __m512i) -> __m512 {
        // SAFETY: the caller's promise; both types are 512 bits.
        unsafe {
            _mm512_dpbf16_ps(
                sum,
                std::mem::transmute::<__m512i, __m512bh>(left),
                std::mem::transmute::<__m512i, __m512bh>(right),
            )
        }
    }
}

/// Two bf16, multiplied as f32.
struct WidePair;

impl Word for WidePair {
    #[inline(always)]
    unsafe fn multiply_add(sum: __m512, left: __m512i, right: __m512i) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe {
            let lower = |words| _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
            let upper = |words| {
                _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32 as i32)))
            };
            _mm512_fmadd_ps(upper(left), upper(right), _mm512_fmadd_ps(lower(left), lower(right), sum))
        }
    }
}

/// A patch of f32 tiles.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn f32(patch: &Patch) {
    // SAFETY: the caller's promise is the callee's.
    unsafe { patch_of::<Single>(patch) }
}

/// A patch of bf16 tiles.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn bf16(patch: &Patch) {
    // SAFETY: the caller's promise is the callee's.
    unsafe { patch_of::<Pair>(patch) }
}

/// A patch of bf16 tiles, whose factors are multiplied as f32.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn bf16_as_f32(patch: &Patch) {
    // SAFETY: the caller's promise is the callee's.
    unsafe { patch_of::<WidePair>(patch) }
}

#[inline(always)]
unsafe fn patch_of<W: Word>(patch: &Patch) {
    // SAFETY: the caller's promise is the callee's.
    unsafe {
        match patch.col_panels {
            1 => panels::<W, 1>(patch),
            2 => panels::<W, 2>(patch),
            _ => panels::<W, 3>(patch),
        }
    }
}

#[inline(always)]
unsafe fn panels<W: Word, const P: usize>(patch: &Patch) {
    let mut first = 0;
    while first < patch.rows {
        // SAFETY: the rows `first .. first + R` belong to the patch.
        first += unsafe {
            match patch.rows - first {
                8.. => rows::<W, P, 8>(patch, first),
                4.. => rows::<W, P, 4>(patch, first),
                2.. => rows::<W, P, 2>(patch, first),
                _ => rows::<W, P, 1>(patch, first),
            }
        };
    }
}

/// R rows of P panels; returns R.
#[inline(always)]
unsafe fn rows<W: Word, const P: usize, const R: usize>(patch: &Patch, first: usize) -> usize {
    // SAFETY: tiles `0..tiles` of all panels exist, and so do the R x 16 P elements of the result.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); P]; R];
        let out = patch.out.add(first * patch.out_step);
        if patch.add {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (p, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_loadu_ps(out.add(i * patch.out_step + p * SIDE));
                }
            }
        }
        for tile in 0..patch.tiles {
            let left = patch.left.add(tile).cast::<i32>().add(first * SIDE);
            let right = patch.right.add(tile).cast::<i32>();
            for word in 0..SIDE {
                let mut columns = [_mm512_setzero_si512(); P];
                for (p, column) in columns.iter_mut().enumerate() {
                    *column =
                        _mm512_load_si512(right.add(p * patch.right_step * SIDE * SIDE + word * SIDE).cast());
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let factor = _mm512_set1_epi32(*left.add(i * SIDE + word));
                    for (sum, &column) in sums.iter_mut().zip(&columns) {
                        *sum = W::multiply_add(*sum, factor, column);
                    }
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (p, sum) in sums.into_iter().enumerate() {
                _mm512_storeu_ps(out.add(i * patch.out_step + p * SIDE), sum);
            }
        }
    }
    R
}
