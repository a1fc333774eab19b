//! Training shards: files of rows that lie as [`layout`](crate::layout) says, written and read.

mod geometry;
mod reader;
mod rolling_writer;
mod writer;

pub(crate) use reader::ShardReader;
pub(crate) use rolling_writer::{RollingShardWriter, ShardMetadata};
pub(crate) use writer::CREATED_BY;
