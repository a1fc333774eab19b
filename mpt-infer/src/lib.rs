//! Text out of an MPT model.
