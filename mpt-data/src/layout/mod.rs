//! Layout of a shard: the offset of any row is computed.
//!
//! A shard is a Parquet file of two required columns, PLAIN, without dictionary, statistics or compression:
//!
//! | column | type | holds |
//! |---|---|---|
//! | `tokens` | FIXED_LEN_BYTE_ARRAY(2·row), or (4·row) for vocabularies above 65,536 | token ids, u16 or u32, little-endian |
//! | `meta` | FIXED_LEN_BYTE_ARRAY(16 + row/8) | u64 xxh3 of the rest of the row; u64 ordinal of the document at token 0; bitmap of document starts |
//!
//! The checksum is XXH3-64 over `tokens` and then `meta` without its first 8 bytes. Pages have 256 rows, row groups 2048 rows,
//! files 16 groups at most. Any Parquet reader reads the files; ours reads a row without the footer.

mod file;
mod pages;
mod row;

pub use file::ShardRecord;
pub(crate) use file::length_problem;
pub use pages::{ColumnPages, RowGroup};
pub(crate) use row::{
    RowBuffers, RowBytes, RowLayout, decode_tokens, encode_row, encode_tokens, verified_row,
};

/// Rows in a page.
pub(crate) const PAGE_ROWS: u64 = 256;
/// Rows in a full row group.
pub(crate) const GROUP_ROWS: u64 = 2048;
/// Row groups in a full file.
pub(crate) const FILE_GROUPS: u64 = 16;
