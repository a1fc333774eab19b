//! MDS, the format of MosaicML Streaming, version 2.
//!
//! ```text
//! dataset folder  index.json, shard.00000.mds or shard.00000.mds.zstd, …; a merged index names files in subfolders
//! shard           u32 N | u32 offset[N + 1] from the file's beginning | configuration as JSON | N samples
//! sample          u32 size of each column whose size is not fixed | the columns' bytes; columns in the order of their names
//! ```
//!
//! All numbers are little-endian. A shard, compressed or not, is read in one pass, in memory for its offsets and one sample;
//! no length is believed before its bytes are read. The writer gives the bytes of the Python package.

mod codec;
mod encoding;
mod hashes;
mod index;
mod json;
mod numbers;
mod reader;
mod value;
mod writer;

pub use codec::{Algorithm, Codec};
pub use encoding::{Encoding, ImageFormat};
pub use hashes::HashAlgorithm;
pub(crate) use index::INDEX;
pub use index::{ColumnSpec, FileInfo, MdsDataset, MdsShard};
pub use numbers::Numbers;
pub use reader::{MdsSample, MdsSamples};
pub use value::{Image, Value};
pub use writer::{MdsOptions, MdsWriter, merge_index};
