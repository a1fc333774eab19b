//! Rotary position embedding: rotation of heads by angles.

use candle_core::Tensor;

use super::device::backend_of;
use crate::error::{Error, Result};

/// Rotates the pairs `(x[i], x[i + e/2])` of every head of a token by the token's angles.
///
/// `x` `[tokens, heads, e]`, e even; `angles` `[tokens * e/2]` in radians. Returns the shape of `x`.
///
/// # Errors
/// [`Error::Shape`] when the number of angles is wrong.
///
/// Source: Su et al. 2021, section 3.4.2, with pairs of half-head distance instead of neighbors.
pub fn rotate(x: &Tensor, angles: &[f32]) -> Result<Tensor> {
    rotate_by(x, angles, 1.0)
}

/// Gradient of the input of [`rotate`]: `dy` `[tokens, heads, e]` rotated by the negative angles.
///
/// # Errors
/// [`Error::Shape`] when the number of angles is wrong.
pub fn rotate_backward(dy: &Tensor, angles: &[f32]) -> Result<Tensor> {
    rotate_by(dy, angles, -1.0)
}

fn rotate_by(x: &Tensor, angles: &[f32], direction: f32) -> Result<Tensor> {
    let (tokens, _, e) = x.dims3()?;
    if e % 2 != 0 || angles.len() != tokens * e / 2 {
        let (actual, expected) = (format!("{} values", angles.len()), format!("{tokens} x {e} / 2 values"));
        return Err(Error::Shape { op: "rotate", argument: "angles", actual, expected });
    }
    backend_of(x)?.rotate(&x.contiguous()?, angles, direction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_backward, random};

    #[test]
    fn pairs_rotate_as_complex_numbers() {
        let x = Tensor::new(&[[[1f32, 0.0, 0.0, 2.0]]], &candle_core::Device::Cpu).unwrap();
        let quarter = std::f32::consts::FRAC_PI_2;
        let y: Vec<f32> = rotate(&x, &[quarter, quarter]).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let expected = [0.0, -2.0, 1.0, 0.0];
        assert!(y.iter().zip(expected).all(|(y, x)| (y - x).abs() < 1e-6), "{y:?}");
    }

    /// Rotation from candle ops.
    fn reference(x: &Tensor, angles: &[f32]) -> candle_core::Result<Tensor> {
        let (tokens, _, e) = x.dims3()?;
        let angles = Tensor::from_slice(angles, (tokens, 1, e / 2), x.device())?;
        let (sin, cos) = (angles.sin()?, angles.cos()?);
        let (a, b) = (x.narrow(2, 0, e / 2)?, x.narrow(2, e / 2, e / 2)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        Tensor::cat(&[first, second], 2)
    }

    #[test]
    fn gradients_agree_with_the_formula_and_finite_differences() {
        let angles: Vec<f32> = (0..12).map(|i| i as f32 * 0.3).collect();
        check_backward(
            &[random(&[6, 2, 4], 1)],
            |args| reference(&args[0], &angles),
            |args| rotate(&args[0], &angles),
            |_, dy| Ok(vec![rotate_backward(dy, &angles)?]),
        );
    }

    #[test]
    fn a_wrong_number_of_angles_is_named() {
        let message = rotate(&random(&[2, 1, 4], 1), &[0.0]).unwrap_err().to_string();
        assert!(message.contains("`angles` is 1 values"), "{message}");
    }
}
