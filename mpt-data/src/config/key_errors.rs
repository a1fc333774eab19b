//! Errors that name the run file and the key.

use std::path::Path;

use crate::error::Error;

/// Run file and table of a key, for errors.
pub(super) struct KeyErrors<'a> {
    pub(super) path: &'a Path,
    /// Prefix of the key: the table, and a dot.
    pub(super) table: String,
}

impl KeyErrors<'_> {
    /// Error for an impossible value.
    pub(super) fn config(&self, key: &str, actual: impl ToString, expected: impl Into<String>) -> Error {
        let (path, field) = (self.path.to_owned(), format!("{}{key}", self.table));
        Error::Config { path, field, expected: expected.into(), actual: actual.to_string() }
    }

    /// Error for a value that is not supported.
    pub(super) fn unsupported(&self, key: &str, actual: impl ToString, instead: &'static str) -> Error {
        let (path, field) = (self.path.to_owned(), format!("{}{key}", self.table));
        Error::Unsupported { path, field, actual: actual.to_string(), instead }
    }
}
