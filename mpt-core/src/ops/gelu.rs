//! The exact GELU.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::host::{contiguous, host_slice};
use crate::error::Result;
use crate::kernels::cpu::gelu;

/// Elements of one task.
const CHUNK: usize = 1 << 13;

/// `x * Phi(x)` with the exact normal distribution, as MPT was trained (not the tanh form). `x` f32 of any shape.
///
/// # Errors
/// When `x` is not f32 on the CPU.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    Ok(x.contiguous()?.apply_op1(GeluOp)?)
}

struct GeluOp;

impl CustomOp1 for GeluOp {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = contiguous(x, layout)?;
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| gelu::forward(x, y));
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let mut dx = vec![0f32; x.elem_count()];
        let (x_data, dy) = (host_slice(x)?, host_slice(&dy)?);
        dx.par_chunks_mut(CHUNK)
            .zip(x_data.par_chunks(CHUNK).zip(dy.par_chunks(CHUNK)))
            .for_each(|(dx, (x, dy))| gelu::backward(x, dy, dx));
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, random};

    #[test]
    fn agrees_with_plain_tensors() {
        let x = (random(&[7, 11], 1) * 3.0).unwrap();
        assert_close(&gelu(&x).unwrap(), &x.gelu_erf().unwrap(), 2e-6);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        check_gradients(&[random(&[3, 7], 1)], |args| gelu(&args[0]));
    }
}
