//! Layer and root-mean-square normalization over the last dimension.

use candle_core::Tensor;

use super::arguments::NormParams;
use super::device::backend_of;
use crate::error::{Error, Result};

/// `(x - mean) / sqrt(variance + eps) * weight`, or `x / sqrt(mean(x^2) + eps) * weight`, over the last dimension.
///
/// `x` `[.., d]`; returns the shape of `x`.
///
/// # Errors
/// [`Error::Shape`] when the last dimension of `x` is not `d`.
pub fn norm(x: &Tensor, weights: NormParams<'_>) -> Result<Tensor> {
    expect_width(x, weights.weight)?;
    backend_of(x)?.norm(&x.contiguous()?, weights)
}

/// Gradients of the input `[.., d]` and the weight `[d]` of [`norm`], given that of its result, `dy` `[.., d]`.
///
/// # Errors
/// [`Error::Shape`] when the last dimension of `x` is not `d`.
pub fn norm_backward(x: &Tensor, weights: NormParams<'_>, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    expect_width(x, weights.weight)?;
    backend_of(x)?.norm_backward(&x.contiguous()?, weights, &dy.contiguous()?)
}

fn expect_width(x: &Tensor, weight: &Tensor) -> Result<()> {
    let d = weight.dims1()?;
    if x.dims().last() == Some(&d) {
        return Ok(());
    }
    let (actual, expected) = (format!("{:?}", x.dims()), format!("[.., {d}]"));
    Err(Error::Shape { op: "norm", argument: "x", actual, expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::NormKind;
    use crate::testing::{assert_close, check_backward, random};

    fn reference(kind: NormKind, x: &Tensor, weight: &Tensor, eps: f64) -> candle_core::Result<Tensor> {
        let last = x.rank() - 1;
        let center = kind == NormKind::Layer;
        let x = if center { x.broadcast_sub(&x.mean_keepdim(last)?)? } else { x.clone() };
        let deviation = (x.sqr()?.mean_keepdim(last)? + eps)?.sqrt()?;
        x.broadcast_div(&deviation)?.broadcast_mul(weight)
    }

    #[test]
    fn agrees_with_candle() {
        for (rows, d) in [(1, 1), (3, 17), (70, 64)] {
            let (x, weight) = (random(&[rows, d], 1), random(&[d], 2));
            for kind in [NormKind::Layer, NormKind::Rms] {
                let found = norm(&x, NormParams { kind, weight: &weight, eps: 1e-5 }).unwrap();
                assert_close(&found, &reference(kind, &x, &weight, 1e-5).unwrap(), 1e-5);
            }
        }
    }

    #[test]
    fn gradients_agree_with_the_formula_and_finite_differences() {
        for kind in [NormKind::Layer, NormKind::Rms] {
            fn weights(kind: NormKind, weight: &Tensor) -> NormParams<'_> {
                NormParams { kind, weight, eps: 0.1 }
            }
            check_backward(
                &[random(&[35, 6], 1), random(&[6], 2)],
                |args| reference(kind, &args[0], &args[1], 0.1),
                |args| norm(&args[0], weights(kind, &args[1])),
                |args, dy| norm_backward(&args[0], weights(kind, &args[1]), dy).map(|(dx, dw)| vec![dx, dw]),
            );
        }
    }
}
