//! Sums of 16 rows with AVX-512, from blocks of 16 x 16 values that are transposed in registers.

#![expect(unsafe_code, reason = "vector loads of values whose bounds the caller has checked")]

use std::arch::x86_64::*;

use crate::kernels::cpu::gemm::{SIDE, transposed};

/// Values that are asked for ahead in each row.
const AHEAD: usize = 256;

/// As [`plain::add`](super::plain::add).
///
/// # Safety
/// The processor has AVX-512 F; all of `x` and `rows` have one length, a multiple of 16.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn add<const M: usize>(sums: &mut [[f32; SIDE]; M], x: [&[f32]; M], rows: &[&[f32]; SIDE]) {
    let rows = rows.map(<[f32]>::as_ptr);
    // SAFETY: `sums` have 16 lanes, every row `len` values, of which 16 are read at a time.
    unsafe {
        let mut totals = [_mm512_setzero_ps(); M];
        for (total, sums) in totals.iter_mut().zip(&*sums) {
            *total = _mm512_loadu_ps(sums.as_ptr());
        }
        for at in (0..x[0].len()).step_by(SIDE) {
            let mut lines = [_mm512_setzero_si512(); SIDE];
            for (line, row) in lines.iter_mut().zip(rows) {
                _mm_prefetch::<_MM_HINT_T1>(row.wrapping_add(at + AHEAD).cast());
                *line = _mm512_loadu_si512(row.add(at).cast());
            }
            for (word, column) in transposed(lines).into_iter().enumerate() {
                for (total, x) in totals.iter_mut().zip(x) {
                    let factor = _mm512_set1_ps(*x.get_unchecked(at + word));
                    *total = _mm512_fmadd_ps(factor, _mm512_castsi512_ps(column), *total);
                }
            }
        }
        for (sums, total) in sums.iter_mut().zip(totals) {
            _mm512_storeu_ps(sums.as_mut_ptr(), total);
        }
    }
}
