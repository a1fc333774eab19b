//! Checks of filter settings, and thresholds of rules.

use std::path::Path;

use super::DropReason;
use crate::mixing::InvalidKey;
use crate::remote;

/// Checks that a file is on this machine. Only the documents of sources may be in an object store.
pub(crate) fn check_local(key: &'static str, path: &str) -> Result<(), InvalidKey> {
    if remote::is_remote(Path::new(path)) {
        let expected = "a file on this machine; copy it beside the mix file, and name the copy here";
        return Err(InvalidKey::new(key, format!("\"{path}\""), expected));
    }
    Ok(())
}

/// Checks that a value is a share from 0 to 1.
pub(crate) fn check_share(key: &'static str, value: f64) -> Result<(), InvalidKey> {
    let is_share = (0.0..=1.0).contains(&value);
    if is_share { Ok(()) } else { Err(InvalidKey::new(key, value.to_string(), "a share from 0 to 1")) }
}

/// Checks that a value is finite and not negative.
pub(super) fn check_ratio(key: &'static str, value: f64) -> Result<(), InvalidKey> {
    let is_ratio = value >= 0.0 && value.is_finite();
    if is_ratio { Ok(()) } else { Err(InvalidKey::new(key, value.to_string(), "a number, 0 or more")) }
}

/// Checks that `low` is not above `high`.
pub(super) fn check_order(
    low_key: &'static str,
    low: f64,
    high_key: &'static str,
    high: f64,
) -> Result<(), InvalidKey> {
    if low <= high {
        return Ok(());
    }
    Err(InvalidKey::new(low_key, low.to_string(), format!("no more than `{high_key}`, which is {high}")))
}

/// Reason to drop a document whose value is below a threshold.
pub(super) fn at_least(rule: &'static str, key: &str, value: f64, threshold: f64) -> Option<DropReason> {
    (value < threshold).then(|| threshold_reason(rule, key, value))
}

/// Reason to drop a document whose value is above a threshold.
pub(super) fn at_most(rule: &'static str, key: &str, value: f64, threshold: f64) -> Option<DropReason> {
    (value > threshold).then(|| threshold_reason(rule, key, value))
}

/// Key that decided and the document's value, to six decimals.
fn threshold_reason(rule: &'static str, key: &str, value: f64) -> DropReason {
    let rounded = (value * 1e6).round() / 1e6;
    DropReason { rule, value: format!("{key}={rounded}") }
}
