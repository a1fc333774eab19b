//! Activations on the processor.

use candle_core::Tensor;

use crate::config::Activation;
use crate::error::Result;
use crate::host::{change_in_place, host_slice, tensor_like};
use crate::kernels::cpu::activation as kernel;
use crate::kernels::cpu::blocks::{map_blocks, multiply_into};

pub(crate) fn activation(x: &Tensor, activation: Activation) -> Result<Tensor> {
    let y = map_blocks(&host_slice(x)?, |_, y| kernel::forward(activation, y));
    tensor_like(y, x)
}

pub(crate) fn activation_backward(x: &Tensor, activation: Activation, dy: &Tensor) -> Result<()> {
    let dy = host_slice(dy)?;
    change_in_place(x, |x| kernel::backward_pooled(activation, &dy, x))
}

pub(crate) fn multiply(product: &Tensor, by: &Tensor) -> Result<()> {
    let by = host_slice(by)?;
    change_in_place(product, |product| multiply_into(product, &by))
}
