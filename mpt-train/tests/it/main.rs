//! Whole runs on small data made here, and the reference's optimizer steps.

mod parity;
mod runs;
