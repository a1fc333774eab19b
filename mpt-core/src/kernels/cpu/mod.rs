//! Kernels for the CPU, compiled for several instruction sets and chosen at run time (`dispatch`).

pub(crate) mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
pub(crate) mod attention;
pub(crate) mod blocks;
pub(crate) mod cross_entropy;
pub(crate) mod dispatch;
pub(crate) mod gemm;
mod gemv;
pub(crate) mod math;
pub(crate) mod narrow;
pub(crate) mod norm;
mod normal;
pub(crate) mod optim;
pub(crate) mod pool;
pub(crate) mod quant;
pub(crate) mod quantize;
pub(crate) mod scratch;
pub(crate) mod skinny;
pub(crate) mod stored;
mod stored_views;
pub(crate) mod widen;
