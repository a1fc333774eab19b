//! List files of filters: an entry per line, compressed or not.

use std::path::Path;

use crate::compressed;
use crate::error::{Error, Result};

/// Longest list, decompressed, which is in memory as a whole.
const MAX_LIST_BYTES: u64 = 256 << 20;

/// Text of a file.
pub(super) fn text(path: &Path) -> Result<String> {
    let bytes = compressed::read_whole(path, MAX_LIST_BYTES)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::input(path, format!("byte {at} is not UTF-8; convert the file"))
    })
}

/// Entries of a list: its lines without the white space around them, but for blank ones.
pub(super) fn entries(path: &Path) -> Result<Vec<String>> {
    let text = text(path)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let entries: Vec<_> =
        text.split('\n').map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if entries.is_empty() {
        return Err(Error::input(path, "the list is empty; expected an entry a line"));
    }
    Ok(entries)
}
