//! Training, encoding, decoding: round trips, the same ids as the reference on its own cases and as the library on any
//! text; chat templates byte for byte; and files that mean harm.

mod cases;
mod chat;
mod hostile;
mod library;
mod roundtrip;
mod seeds;
#[path = "../../../mpt-core/tests/it/shared.rs"]
mod shared;
