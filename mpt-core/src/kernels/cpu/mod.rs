//! CPU kernels over slices, compiled for several instruction sets and selected at run time (`dispatch`).

pub(crate) mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
pub(crate) mod attention;
mod convert;
pub(crate) mod cross_entropy;
pub(crate) mod dequantize;
pub(crate) mod dispatch;
pub(crate) mod elementwise;
mod gelu;
pub(crate) mod gemm;
mod gemv;
pub(crate) mod linear;
pub(crate) mod math;
pub(crate) mod norm;
pub(crate) mod optim;
pub(crate) mod pool;
pub(crate) mod quant;
pub(crate) mod quantize;
pub(crate) mod scratch;
pub(crate) mod skinny;
mod weight_views;
