//! Vectors added to rows, and sums of rows, on the processor.

use candle_core::Tensor;

use crate::error::Result;
use crate::host::{change_in_place, host_slice};
use crate::kernels::cpu::blocks::{add_rows, sum_rows};

pub(crate) fn add_bias(y: &Tensor, bias: &Tensor) -> Result<()> {
    let bias = host_slice(bias)?;
    change_in_place(y, |y| add_rows(y, &bias))
}

pub(crate) fn column_sum(dy: &Tensor) -> Result<Tensor> {
    let d = dy.dim(candle_core::D::Minus1)?;
    Ok(Tensor::from_vec(sum_rows(&host_slice(dy)?, d), d, dy.device())?)
}
