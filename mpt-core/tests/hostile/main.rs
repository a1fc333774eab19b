//! Damaged and malicious files: each is read, or refused by a message that names file and offset, in bounded time and memory.
//!
//! One module per format has the known attacks, `mutations` random ones; `PROPTEST_CASES` raises their number.

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
