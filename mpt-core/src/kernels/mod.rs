//! Kernels: numeric code over slices, without tensors, candle types or file formats. Tensor-level operations are `ops`.
//!
//! Every kernel gives the same bits for any number of threads: tasks depend on shapes alone, and each reduction runs in one fixed
//! order.

pub(crate) mod cpu;
