//! Micro-kernels with AVX-512: 8 x 48 accumulators.

#![expect(unsafe_code, reason = "vector instructions over the pointers of a micro-tile")]

use std::arch::x86_64::*;

use super::MicroArgs;
use crate::kernels::cpu::gemm::pack::TILE_DIM;

/// Fused multiply-add of packed words of 32 bits.
trait WordFma {
    /// `acc + a b`.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn fma(acc: __m512, a: __m512i, b: __m512i) -> __m512;
}

/// A word of one f32.
struct F32Word;

impl WordFma for F32Word {
    #[inline(always)]
    unsafe fn fma(acc: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), acc) }
    }
}

/// A word of two bf16, multiplied by the dot-product instruction.
struct Bf16Word;

impl WordFma for Bf16Word {
    #[inline(always)]
    unsafe fn fma(acc: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: as the caller promises; both types are 512 bits.
        unsafe {
            _mm512_dpbf16_ps(
                acc,
                std::mem::transmute::<__m512i, __m512bh>(a),
                std::mem::transmute::<__m512i, __m512bh>(b),
            )
        }
    }
}

/// A word of two bf16, multiplied as f32.
struct Bf16AsF32Word;

impl WordFma for Bf16AsF32Word {
    #[inline(always)]
    unsafe fn fma(acc: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe {
            let low = |words| _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
            let high = |words| {
                _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32 as i32)))
            };
            _mm512_fmadd_ps(high(a), high(b), _mm512_fmadd_ps(low(a), low(b), acc))
        }
    }
}

/// Micro-kernel of f32 tiles.
///
/// # Safety
/// As for [`VectorKernel::run`](super::VectorKernel::run).
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn f32(args: &MicroArgs) {
    // SAFETY: as the caller promises.
    unsafe { micro_tile::<F32Word>(args) }
}

/// Micro-kernel of bf16 tiles.
///
/// # Safety
/// As for [`VectorKernel::run`](super::VectorKernel::run).
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn bf16(args: &MicroArgs) {
    // SAFETY: as the caller promises.
    unsafe { micro_tile::<Bf16Word>(args) }
}

/// Micro-kernel of bf16 tiles, whose factors are multiplied as f32.
///
/// # Safety
/// As for [`VectorKernel::run`](super::VectorKernel::run).
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn bf16_as_f32(args: &MicroArgs) {
    // SAFETY: as the caller promises.
    unsafe { micro_tile::<Bf16AsF32Word>(args) }
}

/// # Safety
/// As for [`VectorKernel::run`](super::VectorKernel::run).
#[inline(always)]
unsafe fn micro_tile<W: WordFma>(args: &MicroArgs) {
    // SAFETY: as the caller promises.
    unsafe {
        match args.col_panels {
            1 => panels::<W, 1>(args),
            2 => panels::<W, 2>(args),
            _ => panels::<W, 3>(args),
        }
    }
}

/// # Safety
/// As for [`VectorKernel::run`](super::VectorKernel::run).
#[inline(always)]
unsafe fn panels<W: WordFma, const P: usize>(args: &MicroArgs) {
    let mut first = 0;
    while first < args.rows {
        // SAFETY: the rows `first .. first + R` belong to the micro-tile.
        first += unsafe {
            match args.rows - first {
                8.. => row_block::<W, P, 8>(args, first),
                4.. => row_block::<W, P, 4>(args, first),
                2.. => row_block::<W, P, 2>(args, first),
                _ => row_block::<W, P, 1>(args, first),
            }
        };
    }
}

/// R rows of P panels, from row `first` on; returns R.
///
/// # Safety
/// As for [`VectorKernel::run`](super::VectorKernel::run).
#[inline(always)]
unsafe fn row_block<W: WordFma, const P: usize, const R: usize>(args: &MicroArgs, first: usize) -> usize {
    // SAFETY: tiles `0..k_tiles` of all panels exist, and so do the R x 16 P elements of C.
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); P]; R];
        let c = args.c.add(first * args.ldc);
        if args.accumulate {
            for (i, acc) in acc.iter_mut().enumerate() {
                for (p, acc) in acc.iter_mut().enumerate() {
                    *acc = _mm512_loadu_ps(c.add(i * args.ldc + p * TILE_DIM));
                }
            }
        }
        for tile in 0..args.k_tiles {
            let a = args.a.add(tile).cast::<i32>().add(first * TILE_DIM);
            let b = args.b.add(tile).cast::<i32>();
            for word in 0..TILE_DIM {
                let mut b_row = [_mm512_setzero_si512(); P];
                for (p, b_row) in b_row.iter_mut().enumerate() {
                    *b_row = _mm512_load_si512(
                        b.add(p * args.b_panel_stride * TILE_DIM * TILE_DIM + word * TILE_DIM).cast(),
                    );
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    let a = _mm512_set1_epi32(*a.add(i * TILE_DIM + word));
                    for (acc, &b) in acc.iter_mut().zip(&b_row) {
                        *acc = W::fma(*acc, a, b);
                    }
                }
            }
        }
        for (i, acc) in acc.into_iter().enumerate() {
            for (p, acc) in acc.into_iter().enumerate() {
                _mm512_storeu_ps(c.add(i * args.ldc + p * TILE_DIM), acc);
            }
        }
    }
    R
}
