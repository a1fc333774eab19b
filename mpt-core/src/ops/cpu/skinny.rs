//! Products with a factor of few rows on the processor.

use candle_core::Tensor;

use crate::error::Result;
use crate::host::{change_in_place, host_slice, tensor_of_width};
use crate::kernels::cpu::skinny;

pub(crate) fn skinny_linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (r, k) = w.dims2()?;
    tensor_of_width(skinny::dots(&host_slice(x)?, &host_slice(w)?, k), x, r)
}

pub(crate) fn skinny_linear_add(y: &Tensor, a: &Tensor, w: &Tensor) -> Result<()> {
    let (_, n) = w.dims2()?;
    let (a, w) = (host_slice(a)?, host_slice(w)?);
    change_in_place(y, |y| skinny::add_combinations(y, &a, &w, n))
}

pub(crate) fn skinny_gradient(a: &Tensor, x: &Tensor) -> Result<Tensor> {
    let width = |x: &Tensor| x.dims().last().copied().unwrap_or(1);
    let (r, n) = (width(a), width(x));
    let product = skinny::combinations(&host_slice(a)?, &host_slice(x)?, n);
    Ok(Tensor::from_vec(product, (r, n), x.device())?)
}
