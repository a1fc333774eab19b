//! Training, encoding and decoding against the reference cases and the `tokenizers` crate; chat templates; hostile files.

mod cases;
mod chat;
mod hostile;
mod library;
mod roundtrip;
mod seeds;
#[path = "../../../mpt-core/tests/it/shared.rs"]
mod shared;
