//! Bounds on what a weights file may say, the same for every format: they keep memory and error messages small.

use std::path::Path;

use crate::error::{Result, damaged};
use crate::quoted::quoted;

/// Tensors of a file at most: MPT-30B has 340.
pub(crate) const MOST_TENSORS: usize = 1 << 16;

/// Bytes of a tensor's name at most: MPT's have 50.
pub(crate) const LONGEST_NAME: usize = 256;

/// Dimensions of a tensor at most: MPT's have two.
pub(crate) const MOST_DIMS: usize = 8;

/// Refuses a name that no program gives a tensor and that would make messages long or move a terminal's cursor.
pub(crate) fn check_name(path: &Path, name: &str) -> Result<()> {
    if name.len() <= LONGEST_NAME && !name.contains(char::is_control) {
        return Ok(());
    }
    let found = format!("the tensor name `{}` of {} bytes", quoted(name), name.len());
    Err(damaged(path, found, "names of at most 256 bytes without control characters"))
}

/// Number of elements of a shape, or `None` where strides or bytes of a shape like it would overflow, whether or not a
/// dimension is zero.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    const MOST: usize = isize::MAX as usize / 8;
    let bound = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim.max(1)))?;
    (bound <= MOST && shape.len() <= MOST_DIMS).then(|| shape.iter().product())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_overflow_are_none_also_where_they_are_empty() {
        assert_eq!(elements(&[2, 3]), Some(6));
        assert_eq!(elements(&[]), Some(1));
        assert_eq!(elements(&[0, 5]), Some(0));
        assert_eq!(elements(&[0, 1 << 40, 1 << 40]), None);
        assert_eq!(elements(&[1 << 32, 1 << 31]), None);
        assert_eq!(elements(&[1; 9]), None);
    }
}
