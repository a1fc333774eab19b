//! Training shards: files of rows that lie as [`layout`](crate::layout) says, written and read.

mod files;
mod geometry;
mod reader;
mod writer;

pub(crate) use files::{Part, ShardFiles};
pub(crate) use reader::ShardReader;
pub(crate) use writer::CREATED_BY;
