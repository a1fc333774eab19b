//! CPU skinny GEMM.

use candle_core::Tensor;

use crate::error::Result;
use crate::host::{host_slice, tensor_with_width, with_slice_mut};
use crate::kernels::cpu::skinny;

pub(crate) fn skinny_linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (r, k) = w.dims2()?;
    tensor_with_width(skinny::matmul_nt(&host_slice(x)?, &host_slice(w)?, k), x, r)
}

pub(crate) fn skinny_linear_add(y: &Tensor, a: &Tensor, w: &Tensor) -> Result<()> {
    let (_, n) = w.dims2()?;
    let (a, w) = (host_slice(a)?, host_slice(w)?);
    with_slice_mut(y, |y| skinny::matmul_nn_add(y, &a, &w, n))
}

pub(crate) fn skinny_gradient(a: &Tensor, x: &Tensor) -> Result<Tensor> {
    let width = |x: &Tensor| x.dims().last().copied().unwrap_or(1);
    let (r, n) = (width(a), width(x));
    let product = skinny::matmul_tn(&host_slice(a)?, &host_slice(x)?, n);
    Ok(Tensor::from_vec(product, (r, n), x.device())?)
}
