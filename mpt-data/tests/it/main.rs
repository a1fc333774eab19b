//! Preparation and loading end to end, on small corpora made here.

mod converting;
mod corpus;
mod damage;
mod deduplicating;
mod dirty;
mod errors;
mod interrupted;
mod loading;
mod mds;
mod megatron;
mod mix;
mod mixes;
mod orders;
mod preparing;
#[cfg(feature = "remote")]
mod remote;
mod simulating;
mod steps;
mod tracing;
