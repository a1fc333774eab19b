//! A soft bound on scores.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::host::{contiguous, host_slice};
use crate::error::Result;
use crate::kernels::cpu::activation::tanh;

/// `cap * tanh(x / cap)` of every element. `x` f32 of any shape.
///
/// # Errors
/// When `x` is not f32 on the CPU.
///
/// Source: Gemma Team 2024 (Gemma 2), section 2.
pub fn soft_cap(x: &Tensor, cap: f64) -> Result<Tensor> {
    Ok(x.contiguous()?.apply_op1(SoftCapOp { cap: cap as f32 })?)
}

struct SoftCapOp {
    cap: f32,
}

impl CustomOp1 for SoftCapOp {
    fn name(&self) -> &'static str {
        "soft cap"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = contiguous(x, layout)?.par_iter().with_min_len(1 << 12);
        let y = y.map(|x| self.cap * tanh(x / self.cap)).collect();
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    /// `1 - (y / cap)^2`
    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let (y, dy) = (host_slice(y)?, host_slice(&dy)?);
        let slope = |y: f32| 1.0 - (y / self.cap) * (y / self.cap);
        let dx: Vec<f32> = y.par_iter().zip(dy.par_iter()).map(|(&y, dy)| dy * slope(y)).collect();
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, random};

    #[test]
    fn agrees_with_plain_tensors() {
        let x = (random(&[5, 9], 1) * 20.0).unwrap();
        let plain = ((&x / 7.0).unwrap().tanh().unwrap() * 7.0).unwrap();
        assert_close(&soft_cap(&x, 7.0).unwrap(), &plain, 2e-6);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        check_gradients(&[random(&[3, 5], 1)], |args| soft_cap(&args[0], 1.5));
    }
}
