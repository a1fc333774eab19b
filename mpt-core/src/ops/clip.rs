//! Clipping to a symmetric range, as `clip_qkv` does.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::host::{contiguous, host_slice};
use crate::error::Result;

/// Elements of one task.
const CHUNK: usize = 1 << 14;

/// `x` limited to `[-bound, bound]`. `x` f32 of any shape; the gradient passes where `x` lies within the range.
///
/// # Errors
/// When `x` is not f32 on the CPU.
pub fn clip(x: &Tensor, bound: f64) -> Result<Tensor> {
    Ok(x.contiguous()?.apply_op1(ClipOp { bound: bound as f32 })?)
}

struct ClipOp {
    bound: f32,
}

impl CustomOp1 for ClipOp {
    fn name(&self) -> &'static str {
        "clip"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = contiguous(x, layout)?;
        let clipped = x.par_iter().with_min_len(CHUNK).map(|x| x.clamp(-self.bound, self.bound)).collect();
        Ok((CpuStorage::F32(clipped), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let (x_data, dy) = (host_slice(x)?, host_slice(&dy)?);
        let pass = |(x, dy): (&f32, &f32)| if x.abs() <= self.bound { *dy } else { 0.0 };
        let dx: Vec<f32> = x_data.par_iter().zip(dy.par_iter()).with_min_len(CHUNK).map(pass).collect();
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, random};

    #[test]
    fn agrees_with_plain_tensors() {
        let x = random(&[7, 11], 1);
        assert_close(&clip(&x, 0.8).unwrap(), &x.clamp(-0.8, 0.8).unwrap(), 0.0);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        check_gradients(&[random(&[3, 7], 1)], |args| clip(&args[0], 0.8));
    }
}
