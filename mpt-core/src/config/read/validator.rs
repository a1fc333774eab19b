//! Range checks on the values of a configuration, with errors that name the file and the key.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::quoted::quoted;

/// Checks of one configuration file.
pub(super) struct Validator<'a> {
    /// Path in error messages.
    pub(super) path: &'a Path,
}

impl Validator<'_> {
    /// Largest size: the element count of a matrix fits in 64 bits.
    pub(super) const MAX_SIZE: usize = 1 << 30;

    /// Largest number of layers; MPT-30B has 48.
    pub(super) const MAX_LAYERS: usize = 1 << 16;

    /// Error for an invalid value.
    pub(super) fn invalid(
        &self,
        field: &'static str,
        actual: impl ToString,
        expected: impl Into<String>,
    ) -> Error {
        Error::Config {
            path: self.path.to_owned(),
            field,
            expected: expected.into(),
            actual: quoted(&actual.to_string()),
        }
    }

    /// Error for a valid value of a feature that is not supported.
    pub(super) fn unsupported(
        &self,
        field: &'static str,
        actual: impl ToString,
        instead: &'static str,
    ) -> Error {
        let actual = quoted(&actual.to_string());
        Error::Unsupported { path: self.path.to_owned(), field, actual, instead }
    }

    /// Refuses any value of an unsupported key.
    pub(super) fn unset(&self, field: &'static str, value: Option<impl ToString>) -> Result<()> {
        match value {
            Some(value) => {
                Err(self.unsupported(field, value, "remove the key if the weights do not need it"))
            }
            None => Ok(()),
        }
    }

    /// Size from 1 to [`MAX_SIZE`](Self::MAX_SIZE).
    pub(super) fn size(&self, field: &'static str, size: usize) -> Result<usize> {
        match size {
            1..=Self::MAX_SIZE => Ok(size),
            _ => Err(self.invalid(field, size, "a number from 1 to 2^30")),
        }
    }

    /// Finite number above 0.
    pub(super) fn positive(&self, field: &'static str, value: f64) -> Result<f64> {
        if value > 0.0 {
            self.finite(field, value)
        } else {
            Err(self.invalid(field, value, "a number above 0"))
        }
    }

    /// Finite number above 0, or `None`.
    pub(super) fn optional_positive(&self, field: &'static str, value: Option<f64>) -> Result<Option<f64>> {
        value.map(|value| self.positive(field, value)).transpose()
    }

    /// Number above 0 and up to 1.
    pub(super) fn fraction(&self, field: &'static str, value: f64) -> Result<f64> {
        if value > 0.0 && value <= 1.0 {
            Ok(value)
        } else {
            Err(self.invalid(field, value, "a number above 0 and up to 1"))
        }
    }

    /// Dropout rate of at least 0 and below 1; 0 by default.
    pub(super) fn rate(&self, field: &'static str, value: Option<f64>) -> Result<f64> {
        match value.unwrap_or(0.0) {
            rate if (0.0..1.0).contains(&rate) => Ok(rate),
            rate => Err(self.invalid(field, rate, "a rate of at least 0 and below 1")),
        }
    }

    /// Finite number.
    pub(super) fn finite(&self, field: &'static str, value: f64) -> Result<f64> {
        if value.is_finite() { Ok(value) } else { Err(self.invalid(field, value, "a finite number")) }
    }

    /// Refuses keys that are not in `ignored`.
    pub(super) fn known_keys(&self, other: &BTreeMap<String, Value>, ignored: &[&str]) -> Result<()> {
        match other.keys().find(|key| !ignored.contains(&key.as_str())) {
            Some(key) => Err(self.invalid(
                "key",
                key,
                "a key of an MPT config.json, such as `d_model` or `attn_config`",
            )),
            None => Ok(()),
        }
    }
}
