//! Patches with AVX2 and FMA: 6 rows x 16 columns of sums.

#![expect(unsafe_code, reason = "vector instructions over the pointers of a patch")]

use std::arch::x86_64::*;

use super::Patch;
use crate::kernels::cpu::gemm::pack::SIDE;

/// Rows whose sums are kept in registers at once: 12 of 16 registers, as 6 rows of two.
const ROWS: usize = 6;

/// A patch of f32 tiles.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn f32(patch: &Patch) {
    // SAFETY: the caller's promise is the callee's.
    unsafe { patch_of::<false>(patch) }
}

/// A patch of bf16 tiles, whose factors are multiplied as f32.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn bf16_as_f32(patch: &Patch) {
    // SAFETY: the caller's promise is the callee's.
    unsafe { patch_of::<true>(patch) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn patch_of<const PAIRS: bool>(patch: &Patch) {
    for panel in 0..patch.col_panels {
        let mut first = 0;
        while first < patch.rows {
            // SAFETY: the rows `first .. first + R` and this panel's columns belong to the patch.
            unsafe {
                match patch.rows - first {
                    1 => rows::<1, PAIRS>(patch, first, panel),
                    2 => rows::<2, PAIRS>(patch, first, panel),
                    3 => rows::<3, PAIRS>(patch, first, panel),
                    4 => rows::<4, PAIRS>(patch, first, panel),
                    5 => rows::<5, PAIRS>(patch, first, panel),
                    _ => rows::<ROWS, PAIRS>(patch, first, panel),
                }
            }
            first += ROWS.min(patch.rows - first);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn rows<const R: usize, const PAIRS: bool>(patch: &Patch, first: usize, panel: usize) {
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    // SAFETY: tiles `0..tiles` of both panels exist, and so do the R x 16 elements of the result.
    unsafe {
        let out = patch.out.add(first * patch.out_step + panel * SIDE);
        if patch.add {
            for (i, sums) in sums.iter_mut().enumerate() {
                let row = out.add(i * patch.out_step);
                *sums = [_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(8))];
            }
        }
        for tile in 0..patch.tiles {
            let left = patch.left.add(tile).cast::<i32>().add(first * SIDE);
            let right = patch.right.add(panel * patch.right_step + tile).cast::<__m256i>();
            for word in 0..SIDE {
                let columns =
                    [_mm256_load_si256(right.add(2 * word)), _mm256_load_si256(right.add(2 * word + 1))];
                for (i, sums) in sums.iter_mut().enumerate() {
                    let factor = _mm256_set1_epi32(*left.add(i * SIDE + word));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        if PAIRS {
                            *sum = _mm256_fmadd_ps(lower(factor), lower(column), *sum);
                            *sum = _mm256_fmadd_ps(upper(factor), upper(column), *sum);
                        } else {
                            let (factor, column) = (_mm256_castsi256_ps(factor), _mm256_castsi256_ps(column));
                            *sum = _mm256_fmadd_ps(factor, column, *sum);
                        }
                    }
                }
            }
        }
        for (i, [low, high]) in sums.into_iter().enumerate() {
            let row = out.add(i * patch.out_step);
            _mm256_storeu_ps(row, low);
            _mm256_storeu_ps(row.add(8), high);
        }
    }
}

/// The first bf16 of each word.
#[target_feature(enable = "avx2")]
fn lower(words: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32(words, 16))
}

/// The second bf16 of each word.
#[target_feature(enable = "avx2")]
fn upper(words: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(0xffff_0000_u32 as i32)))
}
