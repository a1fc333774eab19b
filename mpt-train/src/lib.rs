//! From a run description to MPT checkpoints.
