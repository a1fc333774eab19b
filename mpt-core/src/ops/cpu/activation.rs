//! CPU activations.

use candle_core::Tensor;

use crate::config::Activation;
use crate::error::Result;
use crate::host::{host_slice, tensor_like, with_slice_mut};
use crate::kernels::cpu::activation as kernel;
use crate::kernels::cpu::elementwise::{map_blocks, mul_assign};

pub(crate) fn activation(x: &Tensor, activation: Activation) -> Result<Tensor> {
    let y = map_blocks(&host_slice(x)?, |_, y| kernel::forward(activation, y));
    tensor_like(y, x)
}

pub(crate) fn activation_backward(x: &Tensor, activation: Activation, dy: &Tensor) -> Result<()> {
    let dy = host_slice(dy)?;
    with_slice_mut(x, |x| kernel::backward_parallel(activation, &dy, x))
}

pub(crate) fn multiply(product: &Tensor, by: &Tensor) -> Result<()> {
    let by = host_slice(by)?;
    with_slice_mut(product, |product| mul_assign(product, &by))
}
