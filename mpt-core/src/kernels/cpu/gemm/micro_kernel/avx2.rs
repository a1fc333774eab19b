//! Micro-kernels with AVX2 and FMA: 6 x 16 accumulators.

#![expect(unsafe_code, reason = "vector instructions over the pointers of a micro-tile")]

use std::arch::x86_64::*;

use super::MicroArgs;
use crate::kernels::cpu::gemm::pack::TILE_DIM;

/// Rows of accumulators: 12 of 16 registers, two a row.
const MR: usize = 6;

/// Micro-kernel of f32 tiles.
///
/// # Safety
/// As for [`VectorKernel::run`](super::VectorKernel::run).
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn f32(args: &MicroArgs) {
    // SAFETY: as the caller promises.
    unsafe { micro_tile::<false>(args) }
}

/// Micro-kernel of bf16 tiles, whose factors are multiplied as f32.
///
/// # Safety
/// As for [`VectorKernel::run`](super::VectorKernel::run).
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn bf16_as_f32(args: &MicroArgs) {
    // SAFETY: as the caller promises.
    unsafe { micro_tile::<true>(args) }
}

/// # Safety
/// As for [`VectorKernel::run`](super::VectorKernel::run).
#[target_feature(enable = "avx2,fma")]
unsafe fn micro_tile<const BF16: bool>(args: &MicroArgs) {
    for panel in 0..args.col_panels {
        let mut first = 0;
        while first < args.rows {
            // SAFETY: the rows `first .. first + R` and this panel's columns belong to the micro-tile.
            unsafe {
                match args.rows - first {
                    1 => row_block::<1, BF16>(args, first, panel),
                    2 => row_block::<2, BF16>(args, first, panel),
                    3 => row_block::<3, BF16>(args, first, panel),
                    4 => row_block::<4, BF16>(args, first, panel),
                    5 => row_block::<5, BF16>(args, first, panel),
                    _ => row_block::<MR, BF16>(args, first, panel),
                }
            }
            first += MR.min(args.rows - first);
        }
    }
}

/// R rows of one panel, from row `first` on.
///
/// # Safety
/// As for [`VectorKernel::run`](super::VectorKernel::run).
#[target_feature(enable = "avx2,fma")]
unsafe fn row_block<const R: usize, const BF16: bool>(args: &MicroArgs, first: usize, panel: usize) {
    let mut acc = [[_mm256_setzero_ps(); 2]; R];
    // SAFETY: tiles `0..k_tiles` of both panels exist, and so do the R x 16 elements of C.
    unsafe {
        let c = args.c.add(first * args.ldc + panel * TILE_DIM);
        if args.accumulate {
            for (i, acc) in acc.iter_mut().enumerate() {
                let row = c.add(i * args.ldc);
                *acc = [_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(8))];
            }
        }
        for tile in 0..args.k_tiles {
            let a = args.a.add(tile).cast::<i32>().add(first * TILE_DIM);
            let b = args.b.add(panel * args.b_panel_stride + tile).cast::<__m256i>();
            for word in 0..TILE_DIM {
                let b = [_mm256_load_si256(b.add(2 * word)), _mm256_load_si256(b.add(2 * word + 1))];
                for (i, acc) in acc.iter_mut().enumerate() {
                    let a = _mm256_set1_epi32(*a.add(i * TILE_DIM + word));
                    for (acc, b) in acc.iter_mut().zip(b) {
                        if BF16 {
                            *acc = _mm256_fmadd_ps(low_bf16(a), low_bf16(b), *acc);
                            *acc = _mm256_fmadd_ps(high_bf16(a), high_bf16(b), *acc);
                        } else {
                            let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
                            *acc = _mm256_fmadd_ps(a, b, *acc);
                        }
                    }
                }
            }
        }
        for (i, [low, high]) in acc.into_iter().enumerate() {
            let row = c.add(i * args.ldc);
            _mm256_storeu_ps(row, low);
            _mm256_storeu_ps(row.add(8), high);
        }
    }
}

/// The first bf16 of each word.
#[target_feature(enable = "avx2")]
fn low_bf16(words: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32(words, 16))
}

/// The second bf16 of each word.
#[target_feature(enable = "avx2")]
fn high_bf16(words: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(0xffff_0000_u32 as i32)))
}
