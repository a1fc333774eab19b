//! The macro-kernel: the loops over one task of a packed product, around the micro-kernel.
//!
//! `vector` runs the micro-kernels of vector units, `amx` that of the matrix unit. Blocks along the inner dimension depend on
//! its length alone, and each element of C adds them up in order: its bits depend neither on the number of threads nor on
//! other rows and columns.

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
mod vector;

use super::Beta;
use super::pack::PackedMatrix;
use crate::kernels::cpu::pool::SharedPtr;

/// A product of packed operands and its result.
pub(super) struct PackedGemm<'a> {
    pub(super) a: &'a PackedMatrix<'a>,
    pub(super) b: &'a PackedMatrix<'a>,
    pub(super) c: SharedPtr<f32>,
    /// Elements from one row of C to the next.
    pub(super) ldc: usize,
    pub(super) beta: Beta,
}

impl PackedGemm<'_> {
    /// Address of the element of C in row `i` and column `j`.
    fn element(&self, i: usize, j: usize) -> *mut f32 {
        self.c.get().wrapping_add(i * self.ldc + j)
    }
}

/// Length of the fewest equal blocks of `len`, none longer than `max`.
pub(super) fn even_block(len: usize, max: usize) -> usize {
    len.div_ceil(len.div_ceil(max.max(1)))
}
