//! CPU products with weights.

use candle_core::Tensor;

use crate::dtype::Precision;
use crate::error::Result;
use crate::host::{host_slice, tensor_with_width};
use crate::kernels::cpu::gemm::{MatRef, matmul_new};
use crate::kernels::cpu::linear as kernel;
use crate::parameter::Parameter;

pub(crate) fn linear(x: &Tensor, weight: &Parameter, precision: Precision) -> Result<Tensor> {
    let &[d_out, d_in] = weight.dims() else { unreachable!("checked by the op") };
    let x_data = host_slice(x)?;
    let y = match weight {
        Parameter::Tensor(weight) => {
            let weight = weight.contiguous()?;
            matmul_new(rows(&x_data, d_in), rows(&host_slice(&weight)?, d_in).t(), precision)
        }
        Parameter::Stored(weight) => {
            let mut y = vec![0f32; x_data.len() / d_in * d_out];
            kernel::forward(&mut y, &x_data, weight);
            y
        }
    };
    tensor_with_width(y, x, d_out)
}

pub(crate) fn linear_backward(dy: &Tensor, weight: &Parameter, precision: Precision) -> Result<Tensor> {
    let &[d_out, d_in] = weight.dims() else { unreachable!("checked by the op") };
    let dy_data = host_slice(dy)?;
    let dx = match weight {
        Parameter::Tensor(weight) => {
            let weight = weight.contiguous()?;
            matmul_new(rows(&dy_data, d_out), rows(&host_slice(&weight)?, d_in), precision)
        }
        Parameter::Stored(weight) => {
            let mut dx = vec![0f32; dy_data.len() / d_out * d_in];
            kernel::backward_input(&mut dx, &dy_data, weight);
            dx
        }
    };
    tensor_with_width(dx, dy, d_in)
}

pub(crate) fn weight_gradient(dy: &Tensor, x: &Tensor, precision: Precision) -> Result<Tensor> {
    let width = |x: &Tensor| x.dims().last().copied().unwrap_or(1);
    let (d_out, d_in) = (width(dy), width(x));
    let dw = matmul_new(rows(&host_slice(dy)?, d_out).t(), rows(&host_slice(x)?, d_in), precision);
    Ok(Tensor::from_vec(dw, (d_out, d_in), x.device())?)
}

/// `x` as a matrix `[rows, width]`.
fn rows<'a>(x: &'a [f32], width: usize) -> MatRef<'a> {
    MatRef::new(x, x.len() / width.max(1), width, width)
}
