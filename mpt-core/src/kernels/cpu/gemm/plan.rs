//! One product and how it is cut into tasks.

use super::Write;
use super::pack::Packed;
use crate::kernels::cpu::pool::Shared;

/// One product and how it is cut.
pub(super) struct Plan<'a> {
    pub(super) left: &'a Packed<'a>,
    pub(super) right: &'a Packed<'a>,
    pub(super) out: Shared<f32>,
    pub(super) out_step: usize,
    pub(super) write: Write,
}

impl Plan<'_> {
    /// The element in row `i` and column `j` of the result.
    pub(super) fn element(&self, i: usize, j: usize) -> *mut f32 {
        self.out.get().wrapping_add(i * self.out_step + j)
    }
}

/// The length of the fewest equal parts of `len`, none longer than `most`.
pub(super) fn equal_parts(len: usize, most: usize) -> usize {
    len.div_ceil(len.div_ceil(most.max(1)))
}
