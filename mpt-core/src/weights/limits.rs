//! Limits on the headers of weights files of every format. They bound memory and error messages.

use std::path::Path;

use crate::error::{Result, damaged};
use crate::quoted::quoted;

/// Largest number of tensors; MPT-30B has 340.
pub(crate) const MAX_TENSORS: usize = 1 << 16;

/// Longest tensor name in bytes; MPT's have 50.
pub(crate) const MAX_NAME_BYTES: usize = 256;

/// Largest number of dimensions; MPT's tensors have two.
pub(crate) const MAX_DIMS: usize = 8;

/// Refuses a tensor name that is too long or has control characters, which would reach the terminal in messages.
pub(crate) fn check_name(path: &Path, name: &str) -> Result<()> {
    if name.len() <= MAX_NAME_BYTES && !name.contains(char::is_control) {
        return Ok(());
    }
    let found = format!("the tensor name `{}` of {} bytes", quoted(name), name.len());
    Err(damaged(path, found, "names of at most 256 bytes without control characters"))
}

/// Number of elements of a shape. `None` when the strides or bytes of the shape would overflow, even if a dimension is zero.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    const MAX: usize = isize::MAX as usize / 8;
    let bound = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim.max(1)))?;
    (bound <= MAX && shape.len() <= MAX_DIMS).then(|| shape.iter().product())
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
