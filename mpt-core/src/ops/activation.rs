//! The activation of the feed-forward layer.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::host::{contiguous, host_slice};
use crate::config::Activation;
use crate::error::Result;
use crate::kernels::cpu::activation as kernel;
use crate::kernels::cpu::blocks::map_blocks;

/// `activation` of every element. `x` f32 of any shape.
///
/// # Errors
/// When `x` is not f32 on the CPU.
pub fn activation(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(x.contiguous()?.apply_op1(ActivationOp { activation })?)
}

struct ActivationOp {
    activation: Activation,
}

impl CustomOp1 for ActivationOp {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = contiguous(x, layout)?;
        let y = map_blocks(x, |_, y| kernel::forward(self.activation, y));
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let (x_data, dy) = (host_slice(x)?, host_slice(&dy)?);
        let dy: &[f32] = &dy;
        let dx = map_blocks(&x_data, |range, dx| kernel::backward(self.activation, &dy[range], dx));
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, random};

    const ALL: [Activation; 5] =
        [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Relu, Activation::Silu];

    fn plain(x: &Tensor, activation: Activation) -> Tensor {
        match activation {
            Activation::Gelu => x.gelu_erf().unwrap(),
            Activation::GeluTanh => x.gelu().unwrap(),
            Activation::QuickGelu => ((x * 1.702).unwrap().silu().unwrap() / 1.702).unwrap(),
            Activation::Relu => x.relu().unwrap(),
            Activation::Silu => x.silu().unwrap(),
        }
    }

    #[test]
    fn agrees_with_plain_tensors() {
        let x = (random(&[7, 11], 1) * 3.0).unwrap();
        for kind in ALL {
            assert_close(&activation(&x, kind).unwrap(), &plain(&x, kind), 2e-6);
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for kind in ALL {
            check_gradients(&[(random(&[3, 7], 1) + 0.05).unwrap()], |args| activation(&args[0], kind));
        }
    }

    #[test]
    fn extreme_values_stay_finite() {
        let x = Tensor::new(&[-1e30f32, -100.0, 0.0, 100.0, 1e30], &candle_core::Device::Cpu).unwrap();
        for kind in ALL {
            let y: Vec<f32> = activation(&x, kind).unwrap().to_vec1().unwrap();
            let far = y[0].abs().max(y[1].abs());
            assert!(far < 1e-7, "{kind:?}: {y:?}");
            assert_eq!(y[2..], [0.0, 100.0, 1e30], "{kind:?}");
        }
    }
}
