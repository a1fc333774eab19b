//! How numbers are held and multiplied.

use serde::{Deserialize, Serialize};

/// How factors of matrix products are rounded; sums are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// To bf16, to the nearest, ties to even.
    Bf16,
}
