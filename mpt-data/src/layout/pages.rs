//! Offsets of the rows of a row group: a base and a stride per column.

use serde::{Deserialize, Serialize};

use super::PAGE_ROWS;

/// Row group, with the offsets of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowGroup {
    /// Rows in the group.
    pub rows: u64,
    /// Pages of `tokens`.
    pub tokens: ColumnPages,
    /// Pages of `meta`.
    pub meta: ColumnPages,
}

/// Offsets of the rows in the pages of a column chunk. All pages but the last have one length and one distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnPages {
    /// File offset of the first row of the first page.
    pub base: u64,
    /// Bytes from the first row of a page to that of the next; 0 for a single page.
    pub stride: u64,
    /// File offset of the first row of the last page, whose header may be shorter.
    pub tail: u64,
}

impl ColumnPages {
    /// File offset of a row of a group of `rows` rows, each `width` bytes.
    pub fn offset(&self, row: u64, rows: u64, width: usize) -> u64 {
        let page = row / PAGE_ROWS;
        let last = rows.saturating_sub(1) / PAGE_ROWS;
        let start =
            if page == last { self.tail } else { self.base.saturating_add(page.saturating_mul(self.stride)) };
        start.saturating_add(row % PAGE_ROWS * width as u64)
    }
}
