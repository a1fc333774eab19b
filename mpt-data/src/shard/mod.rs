//! Training shards: writers and readers of files in the [`layout`](crate::layout) of rows.

mod geometry;
mod reader;
mod rolling_writer;
mod writer;

pub(crate) use reader::ShardReader;
pub(crate) use rolling_writer::{RollingShardWriter, ShardMetadata};
pub(crate) use writer::CREATED_BY;
