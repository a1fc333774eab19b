//! Strided views of f32 matrices.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

/// A read-only matrix `[rows, cols]`: element (i, j) is `data[i * row_stride + j * col_stride]`; one of the strides is 1.
#[derive(Clone, Copy)]
pub(crate) struct MatRef<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> MatRef<'a> {
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

/// A writable row-major matrix `[rows, cols]`, possibly uninitialized.
pub(crate) struct MatMut<'a> {
    pub(super) data: *mut f32,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    borrowed: PhantomData<&'a mut f32>,
}

impl<'a> MatMut<'a> {
    /// A row-major matrix `[rows, cols]` whose rows lie `row_stride` elements apart.
    ///
    /// # Panics
    /// When `data` does not hold every element.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(extent(rows, cols, row_stride) <= data.len(), "matrix lies outside its data");
        Self { data: data.as_mut_ptr(), rows, cols, row_stride, borrowed: PhantomData }
    }

    /// A matrix `[rows, cols]` in uninitialized memory, which may only be overwritten.
    pub(super) fn from_uninit(data: &'a mut [MaybeUninit<f32>], rows: usize, cols: usize) -> Self {
        assert!(extent(rows, cols, cols) <= data.len(), "matrix lies outside its data");
        Self { data: data.as_mut_ptr().cast(), rows, cols, row_stride: cols, borrowed: PhantomData }
    }

    /// The columns `cols`.
    ///
    /// # Panics
    /// When the matrix has fewer columns.
    pub(super) fn columns(&mut self, cols: Range<usize>) -> MatMut<'_> {
        assert!(cols.start <= cols.end && cols.end <= self.cols, "a matrix has fewer columns");
        MatMut { data: self.data.wrapping_add(cols.start), cols: cols.len(), borrowed: PhantomData, ..*self }
    }

    /// Overwrites every element with zero.
    pub(super) fn fill_zero(self) {
        for row in 0..self.rows {
            #[expect(unsafe_code, reason = "uninitialized memory is written")]
            // SAFETY: the row lies inside the data, as was checked, which is borrowed uniquely.
            unsafe {
                std::ptr::write_bytes(self.data.add(row * self.row_stride), 0, self.cols);
            }
        }
    }
}

/// Elements from the first to the last of a row-major matrix.
fn extent(rows: usize, cols: usize, row_stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + cols }
}
