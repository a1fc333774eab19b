//! Training data of other programs: MosaicML Streaming's MDS and Megatron's indexed datasets, read and written byte for byte
//! as their own libraries do, and turned into our folders and back.
//!
//! [`mds`] and [`megatron`] know one format each and nothing of ours. `import` makes a data folder of either, `export` the
//! reverse, and `rewrite` an MDS dataset with other settings. All three write to a staging folder, which is renamed when it is
//! complete.

mod byte_progress;
mod dtype;
mod export;
mod import;
pub mod mds;
pub mod megatron;
mod rewrite;
mod sources;

pub use dtype::Dtype;
pub use export::{ExportFormat, ExportOptions, ExportSummary, ExportedSource, export};
pub use import::{BoundaryTokens, ImportOptions, ImportSummary, import};
pub use rewrite::rewrite;
