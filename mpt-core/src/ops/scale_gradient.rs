//! A smaller gradient for the same value.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::host::contiguous;
use crate::error::Result;

/// `x` itself, whose gradient is multiplied by `factor` on its way back.
///
/// # Errors
/// When `x` is not f32 on the CPU.
///
/// Source: Zeng et al. 2022 (GLM-130B), section 2.2; llm-foundry writes it as `f x + (1 - f) detach(x)`.
pub fn scale_gradient(x: &Tensor, factor: f64) -> Result<Tensor> {
    Ok(x.contiguous()?.apply_op1(ScaleGradientOp { factor })?)
}

struct ScaleGradientOp {
    factor: f64,
}

impl CustomOp1 for ScaleGradientOp {
    fn name(&self) -> &'static str {
        "scale gradient"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(contiguous(x, layout)?.to_vec()), layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        (dy * self.factor).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random};
    use candle_core::Var;

    #[test]
    fn the_value_stays_and_the_gradient_shrinks() {
        let x = Var::from_tensor(&random(&[3, 4], 1)).unwrap();
        let y = scale_gradient(&x, 0.25).unwrap();
        assert_close(&y, &x, 0.0);
        let gradients = (&y * 3.0).unwrap().sum_all().unwrap().backward().unwrap();
        let expected = (x.ones_like().unwrap() * 0.75).unwrap();
        assert_close(gradients.get(&x).unwrap(), &expected, 1e-6);
    }
}
