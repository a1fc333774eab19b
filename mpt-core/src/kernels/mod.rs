//! Slice-level numeric code: no tensors, no candle types. Tensor-level entry points are in `ops`.
//!
//! Every kernel gives the same bits for any number of threads: work is cut by shape alone, and each reduction
//! runs in one fixed order.

pub(crate) mod cpu;
