//! Sources and prepared data in object stores: `s3://`, `gs://`, `az://`, `https://`.
//!
//! A path that holds `://` is an address. What reads files asks [`is_remote`] and then talks to this module, which without
//! the feature `remote` refuses every address by name. With it:
//!
//! | file | does |
//! |---|---|
//! | `address` | takes an address apart |
//! | `connect` | makes a store of an address and of the usual environment variables |
//! | `http` | lets the store's requests go through ureq |
//! | `fetch` | one range, whatever goes wrong on the way: retries, resumption, a second request when the first is slow |
//! | `store` | the stores in use, and what was seen in them |
//! | `list` | the objects that a pattern leads to |
//! | `object` | one object as a stream, and as a Parquet file |
//! | `page` | which ranges hold some rows of a shard |
//! | `pages` | pages from memory, from the cache, from the store |
//! | `cache` | pages on disk, never more than a limit |
//! | `rows` | rows of a shard in a store |
//! | `examine` | checks a shard in one pass |

mod address;
#[cfg(feature = "remote")]
mod connect;
#[cfg(feature = "remote")]
mod disk_cache;
#[cfg(feature = "remote")]
mod fetch;
#[cfg(feature = "remote")]
mod http;
#[cfg(feature = "remote")]
mod list;
#[cfg(feature = "remote")]
mod object;
#[cfg(feature = "remote")]
mod options;
#[cfg(feature = "remote")]
mod page;
#[cfg(feature = "remote")]
mod page_cache;
#[cfg(feature = "remote")]
mod remote_shard;
#[cfg(feature = "remote")]
mod store;
#[cfg(feature = "remote")]
mod verify;

#[cfg(not(feature = "remote"))]
mod stub;

pub(crate) use address::check;
pub use address::is_remote;
#[cfg(feature = "remote")]
pub(crate) use list::{find, identity};
#[cfg(feature = "remote")]
pub(crate) use object::{RemoteObject, local_copy};
#[cfg(feature = "remote")]
pub use options::{CacheOptions, ReadMode, RemoteOptions};
#[cfg(feature = "remote")]
pub(crate) use remote_shard::RemoteShard;
#[cfg(feature = "remote")]
pub use store::{configure, mount, unmount};
#[cfg(not(feature = "remote"))]
pub(crate) use stub::{RemoteObject, RemoteShard, examine, find, identity, local_copy};
#[cfg(feature = "remote")]
pub(crate) use verify::examine;
