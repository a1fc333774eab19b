//! GEMV kernel with AVX2 and FMA: blocks of 8 x 8 weight values, transposed in registers.

#![expect(unsafe_code, reason = "vector loads of values whose bounds the caller has checked")]

use std::arch::x86_64::*;

use crate::kernels::cpu::gemm::TILE_DIM;

/// Values of a register.
const LANES: usize = 8;

/// As [`scalar::accumulate_rows`](super::scalar::accumulate_rows).
///
/// # Safety
/// The processor has AVX2 and FMA; all of `x` and `rows` have one length, a multiple of 16.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn accumulate_rows<const M: usize>(
    acc: &mut [[f32; TILE_DIM]; M],
    x: [&[f32]; M],
    rows: &[&[f32]; TILE_DIM],
) {
    for (half, rows) in rows.as_chunks::<LANES>().0.iter().enumerate() {
        let rows = rows.map(<[f32]>::as_ptr);
        // SAFETY: `acc` has 16 lanes a row, every row of values one length, of which 8 are read at a time.
        unsafe {
            let mut regs = [_mm256_setzero_ps(); M];
            for (reg, acc) in regs.iter_mut().zip(&*acc) {
                *reg = _mm256_loadu_ps(acc.as_ptr().add(half * LANES));
            }
            for at in (0..x[0].len()).step_by(LANES) {
                let mut lines = [_mm256_setzero_ps(); LANES];
                for (line, row) in lines.iter_mut().zip(rows) {
                    _mm_prefetch::<_MM_HINT_T1>(row.wrapping_add(at + PREFETCH_VALUES).cast());
                    *line = _mm256_loadu_ps(row.add(at));
                }
                for (word, column) in transpose_8x8(lines).into_iter().enumerate() {
                    for (reg, x) in regs.iter_mut().zip(x) {
                        *reg = _mm256_fmadd_ps(_mm256_set1_ps(*x.get_unchecked(at + word)), column, *reg);
                    }
                }
            }
            for (acc, reg) in acc.iter_mut().zip(regs) {
                _mm256_storeu_ps(acc.as_mut_ptr().add(half * LANES), reg);
            }
        }
    }
}

/// Values from a load to the prefetch beside it, within a row.
const PREFETCH_VALUES: usize = 256;

#[inline]
#[target_feature(enable = "avx2")]
fn transpose_8x8(rows: [__m256; LANES]) -> [__m256; LANES] {
    let [a, b, c, d, e, f, g, h] = rows;
    let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    let (ef_low, ef_high) = (_mm256_unpacklo_ps(e, f), _mm256_unpackhi_ps(e, f));
    let (gh_low, gh_high) = (_mm256_unpacklo_ps(g, h), _mm256_unpackhi_ps(g, h));
    // columns c and c + 4 of four rows
    let upper = transpose_quads([ab_low, ab_high], [cd_low, cd_high]);
    let lower = transpose_quads([ef_low, ef_high], [gh_low, gh_high]);
    let mut columns = rows;
    for c in 0..4 {
        columns[c] = _mm256_permute2f128_ps::<0x20>(upper[c], lower[c]);
        columns[c + 4] = _mm256_permute2f128_ps::<0x31>(upper[c], lower[c]);
    }
    columns
}

#[inline]
#[target_feature(enable = "avx2")]
fn transpose_quads([ab_low, ab_high]: [__m256; 2], [cd_low, cd_high]: [__m256; 2]) -> [__m256; 4] {
    [
        _mm256_shuffle_ps::<0x44>(ab_low, cd_low),
        _mm256_shuffle_ps::<0xee>(ab_low, cd_low),
        _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
        _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
    ]
}
