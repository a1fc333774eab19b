//! Files that are damaged or made to do harm: each is read or refused by a message that names file and place, in bounded
//! time and memory.
//!
//! One file for each format holds its known attacks, `mutations` what chance finds; `PROPTEST_CASES` raises its number.

mod adapter;
mod allocations;
mod config;
mod gguf;
mod index;
mod mistaken;
mod mutations;
mod nf4;
mod pickle;
mod safetensors;
mod seeds;
mod sound;
mod trial;
