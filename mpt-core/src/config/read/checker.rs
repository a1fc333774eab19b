//! Errors about one configuration file, and the checks that its values share.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::quoted::quoted;

/// Builds errors about one configuration file.
pub(super) struct Checker<'a> {
    pub(super) path: &'a Path,
}

impl Checker<'_> {
    /// Sizes beyond this are damage, not models: elements of a matrix fit in 64 bits.
    pub(super) const LARGEST_SIZE: usize = 1 << 30;

    /// Layers beyond this are damage, not models: MPT-30B has 48.
    pub(super) const MOST_LAYERS: usize = 1 << 16;

    pub(super) fn wrong(
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

    pub(super) fn unsupported(
        &self,
        field: &'static str,
        actual: impl ToString,
        instead: &'static str,
    ) -> Error {
        let actual = quoted(&actual.to_string());
        Error::Unsupported { path: self.path.to_owned(), field, actual, instead }
    }

    pub(super) fn absent(&self, field: &'static str, value: Option<impl ToString>) -> Result<()> {
        match value {
            Some(value) => {
                Err(self.unsupported(field, value, "remove the key if the weights do not need it"))
            }
            None => Ok(()),
        }
    }

    pub(super) fn size(&self, field: &'static str, size: usize) -> Result<usize> {
        match size {
            1..=Self::LARGEST_SIZE => Ok(size),
            _ => Err(self.wrong(field, size, "a number from 1 to 2^30")),
        }
    }

    pub(super) fn positive(&self, field: &'static str, value: f64) -> Result<f64> {
        if value > 0.0 {
            self.finite(field, value)
        } else {
            Err(self.wrong(field, value, "a number above 0"))
        }
    }

    pub(super) fn optional_positive(&self, field: &'static str, value: Option<f64>) -> Result<Option<f64>> {
        value.map(|value| self.positive(field, value)).transpose()
    }

    pub(super) fn fraction(&self, field: &'static str, value: f64) -> Result<f64> {
        if value > 0.0 && value <= 1.0 {
            Ok(value)
        } else {
            Err(self.wrong(field, value, "a number above 0 and up to 1"))
        }
    }

    pub(super) fn rate(&self, field: &'static str, value: Option<f64>) -> Result<f64> {
        match value.unwrap_or(0.0) {
            rate if (0.0..1.0).contains(&rate) => Ok(rate),
            rate => Err(self.wrong(field, rate, "a rate of at least 0 and below 1")),
        }
    }

    pub(super) fn finite(&self, field: &'static str, value: f64) -> Result<f64> {
        if value.is_finite() { Ok(value) } else { Err(self.wrong(field, value, "a finite number")) }
    }

    pub(super) fn known(&self, other: &BTreeMap<String, Value>, bystanders: &[&str]) -> Result<()> {
        match other.keys().find(|key| !bystanders.contains(&key.as_str())) {
            Some(key) => {
                Err(self.wrong("key", key, "a key of an MPT config.json, such as `d_model` or `attn_config`"))
            }
            None => Ok(()),
        }
    }
}
