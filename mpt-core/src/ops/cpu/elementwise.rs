//! Sums and multiples on the processor.

use candle_core::Tensor;

use crate::error::Result;
use crate::host::{change_in_place, host_slice};
use crate::kernels::cpu::blocks::{add_into, scale_all};

pub(crate) fn add(sum: &Tensor, x: &Tensor) -> Result<()> {
    let x = host_slice(x)?;
    change_in_place(sum, |sum| add_into(sum, &x))
}

pub(crate) fn scale(x: &Tensor, factor: f64) -> Result<()> {
    change_in_place(x, |x| scale_all(x, factor as f32))
}
