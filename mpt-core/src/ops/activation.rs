//! Activations of the feed-forward layer, plain and gated (GLU).

use candle_core::Tensor;

use super::device::backend_of;
use crate::config::Activation;
use crate::error::{Error, Result};

/// `act(x)` element by element; `x` has any shape.
///
/// # Errors
/// When `x` is not f32.
pub fn activation(x: &Tensor, activation: Activation) -> Result<Tensor> {
    backend_of(x)?.activation(&x.contiguous()?, activation)
}

/// Gradient of the input of [`activation`], `dy * act'(x)`, written over `x`, which is contiguous and not shared.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn activation_backward(x: Tensor, activation: Activation, dy: &Tensor) -> Result<Tensor> {
    expect_same("activation_backward", "dy", dy, &x)?;
    backend_of(&x)?.activation_backward(&x, activation, &dy.contiguous()?)?;
    Ok(x)
}

/// `act(gate) * up`, element by element.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
///
/// Source: Shazeer 2020, section 2.
pub fn glu(gate: &Tensor, up: &Tensor, kind: Activation) -> Result<Tensor> {
    expect_same("glu", "up", up, gate)?;
    let y = activation(gate, kind)?;
    backend_of(gate)?.multiply(&y, &up.contiguous()?)?;
    Ok(y)
}

/// Gradients of `gate` and `up` of [`glu`], written over them; both are contiguous and not shared.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn glu_backward(gate: Tensor, up: Tensor, kind: Activation, dy: &Tensor) -> Result<[Tensor; 2]> {
    expect_same("glu_backward", "dy", dy, &gate)?;
    let d_up = activation(&gate, kind)?;
    backend_of(dy)?.multiply(&d_up, dy)?;
    backend_of(dy)?.multiply(&up, dy)?;
    Ok([activation_backward(gate, kind, &up)?, d_up])
}

fn expect_same(op: &'static str, argument: &'static str, found: &Tensor, like: &Tensor) -> Result<()> {
    if found.dims() == like.dims() {
        return Ok(());
    }
    let (actual, expected) = (format!("{:?}", found.dims()), format!("{:?}", like.dims()));
    Err(Error::Shape { op, argument, actual, expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_backward, random};

    const ALL: [Activation; 5] =
        [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Relu, Activation::Silu];

    fn reference(x: &Tensor, activation: Activation) -> candle_core::Result<Tensor> {
        match activation {
            Activation::Gelu => x.gelu_erf(),
            Activation::GeluTanh => x.gelu(),
            Activation::QuickGelu => (x * 1.702)?.silu()? / 1.702,
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
        }
    }

    #[test]
    fn agrees_with_candle() {
        let x = (random(&[7, 300], 1) * 3.0).unwrap();
        for kind in ALL {
            assert_close(&activation(&x, kind).unwrap(), &reference(&x, kind).unwrap(), 2e-6);
        }
    }

    #[test]
    fn gradients_agree_with_the_formula_and_finite_differences() {
        for kind in ALL {
            // an offset, so that no value lies at the kink of relu
            let args = [(random(&[3, 7], 1) + 0.05).unwrap(), random(&[3, 7], 2)];
            check_backward(
                &args[..1],
                |args| reference(&args[0], kind),
                |args| activation(&args[0], kind),
                |args, dy| Ok(vec![activation_backward(args[0].copy()?, kind, dy)?]),
            );
            check_backward(
                &args,
                |args| reference(&args[0], kind)?.mul(&args[1]),
                |args| glu(&args[0], &args[1], kind),
                |args, dy| Ok(glu_backward(args[0].copy()?, args[1].copy()?, kind, dy)?.into()),
            );
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
