//! Objects that match a pattern of a source.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use object_store::path::Path as Key;

use super::options;
use super::store::Store;
use crate::error::{Error, Result};

/// Rules for wildcards: `*` does not cross `/`, and hidden objects match only a leading dot, as files do.
const MATCH_OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Objects of a pattern, in the order of their keys, with their names relative to the pattern's fixed part.
///
/// # Errors
/// [`Error::NoInput`] without a match; [`Error::Remote`].
pub(crate) fn list_objects(source_name: &str, pattern: &str) -> Result<Vec<(PathBuf, String)>> {
    let path = Path::new(pattern);
    let address = options::address(path)?;
    let missing =
        || Error::NoInput { source_name: source_name.to_owned(), pattern: pattern.to_owned(), hint: None };
    if !address.key.contains(is_wild) {
        let (store, key) = Store::for_path(path)?;
        let name = address.key.rsplit('/').next().unwrap_or_default().to_owned();
        return if store.exists(path, &key)? { Ok(vec![(path.to_owned(), name)]) } else { Err(missing()) };
    }
    let folder = fixed_part(address.key);
    let (store, prefix) = Store::for_path(Path::new(&format!("{}/{folder}", address.root)))?;
    let matcher = Pattern::new(address.key).map_err(|_| missing())?;
    let keys = store.list(path, Some(&prefix).filter(|prefix| !prefix.as_ref().is_empty()))?;
    let wanted = keys.iter().filter(|key| matcher.matches_with(key.as_ref(), MATCH_OPTIONS));
    let named = |key: &Key| {
        let name = key.as_ref().strip_prefix(folder).unwrap_or(key.as_ref()).trim_start_matches('/');
        (PathBuf::from(format!("{}/{key}", address.root)), name.to_owned())
    };
    let found: Vec<_> = wanted.map(named).collect();
    if found.is_empty() { Err(missing()) } else { Ok(found) }
}

/// Identity of an object's content in the plan, and its length. The store's tag stands for the content, because a hash would
/// need a second read of everything.
///
/// # Errors
/// [`Error::Remote`]; those of `on_read`, which is called with the object's bytes.
pub(crate) fn planned_identity(
    path: &Path,
    mut on_read: impl FnMut(u64) -> Result<()>,
) -> Result<(String, u64)> {
    let (store, key) = Store::for_path(path)?;
    let found = store.head_for_plan(path, &key)?;
    on_read(found.bytes)?;
    Ok((found.tag, found.bytes))
}

fn is_wild(c: char) -> bool {
    matches!(c, '*' | '?' | '[')
}

/// Folders of a pattern before its first wildcard.
fn fixed_part(key: &str) -> &str {
    let wild = key.find(is_wild).unwrap_or(key.len());
    key[..wild].rfind('/').map_or("", |end| &key[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_part_ends_before_the_first_wildcard() {
        assert_eq!(fixed_part("a/b/*.jsonl"), "a/b");
        assert_eq!(fixed_part("a/b*/c/*.jsonl"), "a");
        assert_eq!(fixed_part("*.jsonl"), "");
    }
}
