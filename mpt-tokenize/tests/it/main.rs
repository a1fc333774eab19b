//! Training, encoding, decoding: round trips, and the same ids as the reference on its own cases.

mod cases;
mod roundtrip;
