//! Matrix products over strided f32 views.

use gemm::Parallelism;

/// A read-only matrix: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A row-major matrix `[rows, cols]` whose rows lie `row_stride` elements apart.
    ///
    /// # Panics
    /// When `data` does not hold every element.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(last_index(rows, cols, row_stride) <= data.len(), "matrix lies outside its data");
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose `[cols, rows]` of the same data.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// A writable row-major matrix.
pub(crate) struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// A row-major matrix `[rows, cols]` whose rows lie `row_stride` elements apart.
    ///
    /// # Panics
    /// When `data` does not hold every element.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(last_index(rows, cols, row_stride) <= data.len(), "matrix lies outside its data");
        Self { data, rows, cols, row_stride }
    }
}

fn last_index(rows: usize, cols: usize, row_stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + cols }
}

/// What happens to the old content of the result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// It is overwritten.
    Overwrite,
    /// The product is added to it.
    Add,
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread alone, for products inside a parallel loop.
    Caller,
    /// All threads of the pool.
    Pool,
}

/// `c = a b` or `c += a b`. The inner dimension is never split among threads, so the bits do not depend on them.
///
/// # Panics
/// When the shapes of `a` `[m, k]`, `b` `[k, n]` and `c` `[m, n]` disagree.
pub(crate) fn matmul(c: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, write: Write, threads: Threads) {
    assert_eq!((c.rows, c.cols, a.cols), (a.rows, b.cols, b.rows), "shapes of a matrix product disagree");
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    let parallelism = match threads {
        Threads::Caller => Parallelism::None,
        Threads::Pool => Parallelism::Rayon(rayon::current_num_threads()),
    };
    #[expect(unsafe_code, reason = "the product takes raw pointers")]
    // SAFETY: `Mat::new` and `MatMut::new` checked that every element addressed through these strides lies inside
    // the slices, `c` is borrowed uniquely, and the shapes agree.
    unsafe {
        gemm::gemm(
            c.rows,
            c.cols,
            a.cols,
            c.data.as_mut_ptr(),
            1,
            c.row_stride as isize,
            write == Write::Add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::CounterRng;
    use proptest::prelude::*;

    fn plain(a: Mat<'_>, b: Mat<'_>, i: usize, j: usize) -> f64 {
        (0..a.cols)
            .map(|k| {
                let x = a.data[i * a.row_stride + k * a.col_stride];
                let y = b.data[k * b.row_stride + j * b.col_stride];
                f64::from(x) * f64::from(y)
            })
            .sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn agrees_with_the_plain_sum(m in 1usize..40, n in 1usize..40, k in 1usize..70, pad in 0usize..5,
                                     ta: bool, tb: bool, add: bool, seed: u64) {
            let mut rng = CounterRng::new(seed, 0);
            let mut random = |len: usize| (0..len).map(|_| rng.normal()).collect::<Vec<f32>>();
            let (a_rows, a_cols) = if ta { (k, m) } else { (m, k) };
            let (b_rows, b_cols) = if tb { (n, k) } else { (k, n) };
            let (a, b) = (random(a_rows * (a_cols + pad)), random(b_rows * (b_cols + pad)));
            let mut c = random(m * (n + pad));
            let before = c.clone();
            let a = Mat::new(&a, a_rows, a_cols, a_cols + pad);
            let b = Mat::new(&b, b_rows, b_cols, b_cols + pad);
            let (a, b) = (if ta { a.t() } else { a }, if tb { b.t() } else { b });
            let write = if add { Write::Add } else { Write::Overwrite };
            matmul(MatMut::new(&mut c, m, n, n + pad), a, b, write, Threads::Pool);
            for i in 0..m {
                for j in 0..n + pad {
                    let at = i * (n + pad) + j;
                    let expected = match (j < n, add) {
                        (false, _) => f64::from(before[at]),
                        (true, false) => plain(a, b, i, j),
                        (true, true) => plain(a, b, i, j) + f64::from(before[at]),
                    };
                    // 70 products of unit normals rounded in f32
                    prop_assert!((f64::from(c[at]) - expected).abs() < 1e-4);
                }
            }
        }
    }
}
