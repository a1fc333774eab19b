//! Preparation and loading end to end, on small corpora made here.

mod changing;
mod converting;
mod corpus;
mod damage;
mod deduplicating;
mod dirty;
mod errors;
mod forged;
mod interrupted;
mod kinds;
mod loading;
mod mds;
mod megatron;
mod mix;
mod mixes;
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
mod targets;
mod tracing;
