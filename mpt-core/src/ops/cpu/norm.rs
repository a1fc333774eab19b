//! CPU norms.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::host::{host_slice, tensor_like};
use crate::kernels::cpu::norm as kernel;
use crate::ops::arguments::NormParams;

/// Rows of a task; the partial gradients of the weight are summed in the order of tasks.
const ROWS: usize = 32;

pub(crate) fn norm(x: &Tensor, NormParams { kind, weight, eps }: NormParams<'_>) -> Result<Tensor> {
    let (x_data, weight) = (host_slice(x)?, host_slice(weight)?);
    let mut y = vec![0f32; x_data.len()];
    let chunk = ROWS * weight.len();
    y.par_chunks_mut(chunk)
        .zip(x_data.par_chunks(chunk))
        .for_each(|(y, x)| kernel::forward(kind, x, &weight, eps as f32, y));
    tensor_like(y, x)
}

pub(crate) fn norm_backward(
    x: &Tensor,
    NormParams { kind, weight, eps }: NormParams<'_>,
    dy: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let (x_data, dy, w_data) = (host_slice(x)?, host_slice(dy)?, host_slice(weight)?);
    let d = w_data.len();
    let mut dx = vec![0f32; x_data.len()];
    let partial: Vec<Vec<f32>> = dx
        .par_chunks_mut(ROWS * d)
        .zip(x_data.par_chunks(ROWS * d).zip(dy.par_chunks(ROWS * d)))
        .map(|(dx, (x, dy))| {
            let mut dw = vec![0f32; d];
            kernel::backward(kind, x, &w_data, eps as f32, dy, dx, &mut dw);
            dw
        })
        .collect();
    let mut dw = vec![0f32; d];
    for partial in &partial {
        dw.iter_mut().zip(partial).for_each(|(sum, value)| *sum += value);
    }
    Ok((tensor_like(dx, x)?, tensor_like(dw, weight)?))
}
