//! `column`: allowed or forbidden values of a field.

use serde::{Deserialize, Serialize};

use super::{COLUMN, DocumentView, DropReason, InvalidKey, Rule};

/// Allowed and forbidden values of a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Field or column.
    pub field: String,
    /// Allowed values; empty for all. A document without the field is dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any_of: Vec<String>,
    /// Forbidden values. A document without the field is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub none_of: Vec<String>,
}

impl Column {
    pub(super) fn check(&self) -> Result<(), InvalidKey> {
        if self.any_of.is_empty() && self.none_of.is_empty() {
            return Err(InvalidKey::new(
                "",
                "a column filter without values",
                "a list `any_of` or `none_of`",
            ));
        }
        Ok(())
    }
}

impl Rule for Column {
    fn apply(&self, view: &mut DocumentView<'_>) -> Option<DropReason> {
        let field = &self.field;
        let Some(value) = view.field(field) else {
            return (!self.any_of.is_empty())
                .then(|| DropReason { rule: COLUMN, value: format!("{field} absent") });
        };
        let listed = |list: &[String]| list.iter().any(|item| item == value);
        let is_kept = (self.any_of.is_empty() || listed(&self.any_of)) && !listed(&self.none_of);
        (!is_kept).then(|| DropReason { rule: COLUMN, value: format!("{field}={value}") })
    }
}
