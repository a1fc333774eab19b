//! Whole runs on small data made here, and the reference's optimizer steps.

mod parity;
mod runs;
#[path = "../../../mpt-core/tests/it/shared.rs"]
mod shared;
