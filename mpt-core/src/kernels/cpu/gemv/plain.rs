//! Sums of 16 rows in plain Rust: the oracle of the other kernels, and what runs on processors without them.

use crate::kernels::cpu::gemm::{SIDE, multiply_add};

/// Rows and columns of the blocks that are transposed.
const QUAD: usize = 4;

/// Adds to `sums[i][j]` the products of `x[i]` and `rows[j]`, one after the other.
pub(super) fn add<const M: usize>(sums: &mut [[f32; SIDE]; M], x: [&[f32]; M], rows: &[&[f32]; SIDE]) {
    for at in (0..rows[0].len()).step_by(QUAD) {
        let factors = x.map(|x| quad(x, at));
        for (first, rows) in rows.as_chunks::<QUAD>().0.iter().enumerate() {
            let lines = rows.map(|row| quad(row, at));
            for word in 0..QUAD {
                let column = lines.map(|line| line[word]);
                for (sums, factors) in sums.iter_mut().zip(&factors) {
                    for (sum, value) in sums[first * QUAD..][..QUAD].iter_mut().zip(column) {
                        *sum = multiply_add(factors[word], value, *sum);
                    }
                }
            }
        }
    }
}

fn quad(values: &[f32], at: usize) -> [f32; QUAD] {
    *values[at..].first_chunk().expect("rows are whole")
}
