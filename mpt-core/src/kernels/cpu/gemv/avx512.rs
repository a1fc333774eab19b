//! GEMV kernel with AVX-512: blocks of 16 x 16 weight values, transposed in registers.

#![expect(unsafe_code, reason = "vector loads of values whose bounds the caller has checked")]

use std::arch::x86_64::*;

use crate::kernels::cpu::gemm::{TILE_DIM, transpose_16x16};

/// Values from a load to the prefetch beside it, within a row.
const PREFETCH_VALUES: usize = 256;

/// As [`scalar::accumulate_rows`](super::scalar::accumulate_rows).
///
/// # Safety
/// The processor has AVX-512 F; all of `x` and `rows` have one length, a multiple of 16.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn accumulate_rows<const M: usize>(
    acc: &mut [[f32; TILE_DIM]; M],
    x: [&[f32]; M],
    rows: &[&[f32]; TILE_DIM],
) {
    let rows = rows.map(<[f32]>::as_ptr);
    // SAFETY: `acc` has 16 lanes a row, every row of values one length, of which 16 are read at a time.
    unsafe {
        let mut regs = [_mm512_setzero_ps(); M];
        for (reg, acc) in regs.iter_mut().zip(&*acc) {
            *reg = _mm512_loadu_ps(acc.as_ptr());
        }
        for at in (0..x[0].len()).step_by(TILE_DIM) {
            let mut lines = [_mm512_setzero_si512(); TILE_DIM];
            for (line, row) in lines.iter_mut().zip(rows) {
                _mm_prefetch::<_MM_HINT_T1>(row.wrapping_add(at + PREFETCH_VALUES).cast());
                *line = _mm512_loadu_si512(row.add(at).cast());
            }
            for (word, column) in transpose_16x16(lines).into_iter().enumerate() {
                for (reg, x) in regs.iter_mut().zip(x) {
                    let factor = _mm512_set1_ps(*x.get_unchecked(at + word));
                    *reg = _mm512_fmadd_ps(factor, _mm512_castsi512_ps(column), *reg);
                }
            }
        }
        for (acc, reg) in acc.iter_mut().zip(regs) {
            _mm512_storeu_ps(acc.as_mut_ptr(), reg);
        }
    }
}
