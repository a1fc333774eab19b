//! Training data of other programs: MosaicML Streaming's MDS and Megatron's indexed datasets, read and written byte for byte
//! as their own libraries do, and turned into our folders and back.
//!
//! [`mds`] and [`megatron`] know one format each and nothing of ours. `import` makes a data folder from either, `export`
//! the reverse; both write aside and take their name when all is there.

mod dtype;
mod export;
mod import;
pub mod mds;
pub mod megatron;
mod sources;

pub use dtype::Dtype;
pub use export::{ExportFormat, ExportOptions, ExportSummary, ExportedSource, export, rewrite};
pub use import::{BoundaryTokens, ImportOptions, ImportSummary, import};
