//! Bounds on what a weights file may say, the same for every format: they keep memory and error messages small.

use std::path::Path;

use super::mmap::damaged;
use crate::error::Result;

/// Tensors of a file at most: MPT-30B has 340.
pub(crate) const MOST_TENSORS: usize = 1 << 16;

/// Bytes of a tensor's name at most: MPT's have 50.
pub(crate) const LONGEST_NAME: usize = 256;

/// Dimensions of a tensor at most: MPT's have two.
pub(crate) const MOST_DIMS: usize = 8;

/// Characters that a message shows of a file's text: the first, and the last.
const SHOWN: (usize, usize) = (300, 60);

/// Refuses a name that no program gives a tensor and that would make messages long or move a terminal's cursor.
pub(crate) fn check_name(path: &Path, name: &str) -> Result<()> {
    if name.len() <= LONGEST_NAME && !name.contains(char::is_control) {
        return Ok(());
    }
    let found = format!("the tensor name `{}` of {} bytes", quoted(name), name.len());
    Err(damaged(path, found, "names of at most 256 bytes without control characters"))
}

/// Text of a file as a message shows it: control characters escaped, the middle of a long one left out.
pub(crate) fn quoted(text: &str) -> String {
    let escaped = |part: &str| -> String {
        let escaped = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
        part.chars().map(escaped).collect()
    };
    let head = text.char_indices().nth(SHOWN.0).map_or(text.len(), |(at, _)| at);
    let tail = text.char_indices().rev().nth(SHOWN.1 - 1).map_or(0, |(at, _)| at);
    if head < tail {
        format!("{}…{}", escaped(&text[..head]), escaped(&text[tail..]))
    } else {
        escaped(text)
    }
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
    fn messages_stay_short_and_on_their_line() {
        assert_eq!(quoted("a.weight"), "a.weight");
        assert_eq!(quoted("a\n\u{1b}[2J"), "a\\n\\u{1b}[2J");
        let long = quoted(&format!("{}{}", "é".repeat(1 << 20), " at line 7"));
        assert!(long.starts_with("éé") && long.ends_with("… at line 7".trim_start_matches('…')), "{long}");
        assert_eq!(long.chars().count(), SHOWN.0 + 1 + SHOWN.1);
    }

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
