//! Strided views of f32 matrices.

/// A read-only matrix: element (i, j) is `data[i * row_stride + j * col_stride]`, where one of the strides is 1.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A row-major matrix `[rows, cols]` whose rows lie `row_stride` elements apart.
    ///
    /// # Panics
    /// When `data` does not hold every element.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(extent(rows, cols, row_stride) <= data.len(), "matrix lies outside its data");
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

    /// The element in row `i` and column `j`.
    #[cfg(test)]
    pub(super) fn at(&self, i: usize, j: usize) -> f32 {
        self.data[i * self.row_stride + j * self.col_stride]
    }
}

/// A writable row-major matrix.
pub(crate) struct MatMut<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// A row-major matrix `[rows, cols]` whose rows lie `row_stride` elements apart.
    ///
    /// # Panics
    /// When `data` does not hold every element.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(extent(rows, cols, row_stride) <= data.len(), "matrix lies outside its data");
        Self { data, rows, cols, row_stride }
    }
}

/// Elements from the first to the last of a matrix.
fn extent(rows: usize, cols: usize, row_stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + cols }
}
