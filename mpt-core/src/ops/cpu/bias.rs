//! CPU bias and sums of rows.

use candle_core::Tensor;

use crate::error::Result;
use crate::host::{host_slice, with_slice_mut};
use crate::kernels::cpu::elementwise::{add_to_rows, sum_rows};

pub(crate) fn add_bias(y: &Tensor, bias: &Tensor) -> Result<()> {
    let bias = host_slice(bias)?;
    with_slice_mut(y, |y| add_to_rows(y, &bias))
}

pub(crate) fn column_sum(dy: &Tensor) -> Result<Tensor> {
    let d = dy.dim(candle_core::D::Minus1)?;
    Ok(Tensor::from_vec(sum_rows(&host_slice(dy)?, d), d, dy.device())?)
}
