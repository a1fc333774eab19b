//! GEMV kernel in portable Rust: the reference of the others, and the fallback where a processor has none of them.

use crate::kernels::cpu::gemm::{TILE_DIM, mul_add};

/// Rows and columns of a transposed block.
const QUAD: usize = 4;

/// Adds to `acc[i][j]` the products of `x[i]` and `rows[j]`, in the order of values.
pub(super) fn accumulate_rows<const M: usize>(
    acc: &mut [[f32; TILE_DIM]; M],
    x: [&[f32]; M],
    rows: &[&[f32]; TILE_DIM],
) {
    for at in (0..rows[0].len()).step_by(QUAD) {
        let factors = x.map(|x| quad(x, at));
        for (first, rows) in rows.as_chunks::<QUAD>().0.iter().enumerate() {
            let lines = rows.map(|row| quad(row, at));
            for word in 0..QUAD {
                let column = lines.map(|line| line[word]);
                for (acc, factors) in acc.iter_mut().zip(&factors) {
                    for (acc, value) in acc[first * QUAD..][..QUAD].iter_mut().zip(column) {
                        *acc = mul_add(factors[word], value, *acc);
                    }
                }
            }
        }
    }
}

fn quad(values: &[f32], at: usize) -> [f32; QUAD] {
    *values[at..].first_chunk().expect("rows are whole")
}
