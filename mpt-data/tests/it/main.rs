//! Preparation and loading end to end, on small corpora made here.

#[cfg(feature = "interop")]
mod changing;
#[cfg(feature = "interop")]
mod converting;
mod corpus;
mod damage;
mod deduplicating;
mod dirty;
mod errors;
#[cfg(feature = "interop")]
mod forged;
mod interrupted;
mod kinds;
mod loading;
#[cfg(feature = "interop")]
mod mds;
#[cfg(feature = "interop")]
mod megatron;
mod mix;
mod mixes;
#[cfg(feature = "interop")]
mod mutated;
mod orders;
mod parquet_files;
mod preparing;
#[cfg(feature = "remote")]
mod remote;
#[path = "../../../mpt-core/tests/it/shared.rs"]
mod shared;
mod simulating;
mod steps;
#[cfg(feature = "interop")]
mod targets;
mod tracing;
