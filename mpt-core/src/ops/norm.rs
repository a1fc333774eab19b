//! Layer and root-mean-square normalization over the last dimension.

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::host::{contiguous, host_slice};
use crate::error::{Error, Result};
use crate::kernels::cpu::norm::{self, NormKind};

/// Rows of one task; partial gradients of the weight are summed in the order of tasks.
const ROWS: usize = 32;

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension.
///
/// `x` `[.., d]`, `weight` `[d]`, `bias` `[d]`; all f32. Returns the shape of `x`.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let y = apply(NormKind::Layer, x, weight, eps)?;
    Ok(match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    })
}

/// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension.
///
/// `x` `[.., d]`, `weight` `[d]`; both f32. Returns the shape of `x`.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    apply(NormKind::Rms, x, weight, eps)
}

fn apply(kind: NormKind, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let d = weight.dims1()?;
    if x.dims().last() != Some(&d) {
        let (actual, expected) = (format!("{:?}", x.dims()), format!("[.., {d}]"));
        return Err(Error::Shape { op: "norm", argument: "x", actual, expected });
    }
    Ok(x.contiguous()?.apply_op2(&weight.contiguous()?, NormOp { kind, eps: eps as f32 })?)
}

struct NormOp {
    kind: NormKind,
    eps: f32,
}

impl CustomOp2 for NormOp {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = forward(self.kind, contiguous(x, x_layout)?, contiguous(weight, weight_layout)?, self.eps);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (x_data, w_data, dy) = (host_slice(x)?, host_slice(weight)?, host_slice(&dy)?);
        let (dx, dw) = backward(self.kind, &x_data, &w_data, self.eps, &dy);
        let dw = Tensor::from_vec(dw, weight.shape(), weight.device())?;
        Ok((Some(Tensor::from_vec(dx, x.shape(), x.device())?), Some(dw)))
    }
}

/// The norm of each row of `x` `[rows, d]` by `weight` `[d]`.
pub(crate) fn forward(kind: NormKind, x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut y = vec![0f32; x.len()];
    let chunk = ROWS * weight.len();
    y.par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .for_each(|(y, x)| norm::forward(kind, x, weight, eps, y));
    y
}

/// The gradients of `x` `[rows, d]` and `weight` `[d]`.
pub(crate) fn backward(
    kind: NormKind,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let d = weight.len();
    let mut dx = vec![0f32; x.len()];
    let partial: Vec<Vec<f32>> = dx
        .par_chunks_mut(ROWS * d)
        .zip(x.par_chunks(ROWS * d).zip(dy.par_chunks(ROWS * d)))
        .map(|(dx, (x, dy))| {
            let mut dw = vec![0f32; d];
            norm::backward(kind, x, weight, eps, dy, dx, &mut dw);
            dw
        })
        .collect();
    let mut dw = vec![0f32; d];
    for partial in &partial {
        dw.iter_mut().zip(partial).for_each(|(sum, value)| *sum += value);
    }
    (dx, dw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, random};

    fn plain(x: &Tensor, weight: &Tensor, eps: f64, center: bool) -> candle_core::Result<Tensor> {
        let last = x.rank() - 1;
        let x = if center { x.broadcast_sub(&x.mean_keepdim(last)?)? } else { x.clone() };
        let deviation = (x.sqr()?.mean_keepdim(last)? + eps)?.sqrt()?;
        x.broadcast_div(&deviation)?.broadcast_mul(weight)
    }

    #[test]
    fn agrees_with_plain_tensors() {
        for (rows, d) in [(1, 1), (3, 17), (70, 64)] {
            let (x, w) = (random(&[rows, d], 1), random(&[d], 2));
            assert_close(&layer_norm(&x, &w, None, 1e-5).unwrap(), &plain(&x, &w, 1e-5, true).unwrap(), 1e-5);
            assert_close(&rms_norm(&x, &w, 1e-5).unwrap(), &plain(&x, &w, 1e-5, false).unwrap(), 1e-5);
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let args = [random(&[35, 6], 1), random(&[6], 2), random(&[6], 3)];
        check_gradients(&args, |args| layer_norm(&args[0], &args[1], Some(&args[2]), 0.1));
        check_gradients(&args[..2], |args| rms_norm(&args[0], &args[1], 0.1));
    }
}
