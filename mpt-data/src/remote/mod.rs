//! Sources and prepared data in object stores: `s3://`, `gs://`, `az://`, `https://`.
//!
//! A path that contains `://` is an address. Readers of files ask [`is_remote`] and then use this module, which refuses every
//! address by name without the feature `remote`. With the feature:
//!
//! | file | holds |
//! |---|---|
//! | `address` | parsing of addresses |
//! | `connect` | the client of a store, from an address and the usual environment variables |
//! | `http` | the HTTP client of the stores, over ureq |
//! | `fetch` | the fetch of one range: retries, resumption, a second request when the first is slow |
//! | `store` | the stores in use, and their known objects |
//! | `list` | the objects that match a pattern |
//! | `object` | one object as a stream, and through windows |
//! | `page` | the ranges of a shard that hold some of its rows |
//! | `page_cache` | pages in memory and on disk, and their prefetch |
//! | `disk_cache` | pages on disk, never more than a limit |
//! | `remote_shard` | rows of a shard in a store |
//! | `verify` | the verification of a shard in one pass |

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

pub(crate) use address::check_pattern;
pub use address::is_remote;
#[cfg(feature = "remote")]
pub(crate) use list::{list_objects, planned_identity};
#[cfg(feature = "remote")]
pub(crate) use object::{RemoteObject, local_copy};
#[cfg(feature = "remote")]
pub use options::{CacheOptions, ReadMode, RemoteOptions};
#[cfg(feature = "remote")]
pub(crate) use remote_shard::RemoteShard;
#[cfg(feature = "remote")]
pub use store::{configure, mount, unmount};
#[cfg(not(feature = "remote"))]
pub(crate) use stub::{RemoteObject, RemoteShard, list_objects, local_copy, planned_identity, shard_damage};
#[cfg(feature = "remote")]
pub(crate) use verify::shard_damage;
