//! `column`: a field's value is one of some, or none of some.

use serde::{Deserialize, Serialize};

use super::{COLUMN, DocumentView, DropReason, InvalidKey, Rule};

/// What a field may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The field or column.
    pub field: String,
    /// The values that stay; empty: all. A document without the field does not stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any_of: Vec<String>,
    /// The values that do not stay. A document without the field stays.
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
    fn judge(&self, page: &mut DocumentView<'_>) -> Option<DropReason> {
        let field = &self.field;
        let Some(value) = page.field(field) else {
            return (!self.any_of.is_empty())
                .then(|| DropReason { rule: COLUMN, value: format!("{field} absent") });
        };
        let listed = |list: &[String]| list.iter().any(|item| item == value);
        let stays = (self.any_of.is_empty() || listed(&self.any_of)) && !listed(&self.none_of);
        (!stays).then(|| DropReason { rule: COLUMN, value: format!("{field}={value}") })
    }
}
