//! CPU sums and multiples.

use candle_core::Tensor;

use crate::error::Result;
use crate::host::{host_slice, with_slice_mut};
use crate::kernels::cpu::elementwise::{add_assign, scale_assign};

pub(crate) fn add(sum: &Tensor, x: &Tensor) -> Result<()> {
    let x = host_slice(x)?;
    with_slice_mut(sum, |sum| add_assign(sum, &x))
}

pub(crate) fn scale(x: &Tensor, factor: f64) -> Result<()> {
    with_slice_mut(x, |x| scale_assign(x, factor as f32))
}
