//! Rotation of heads by angles: rotary position embedding.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::host::{contiguous, host_slice};
use crate::error::{Error, Result};

/// Rotates the pairs `(x[i], x[i + e/2])` of every head of a token by the token's angles.
///
/// `x` `[batch, seq, heads, e]` f32, e even; `angles` `[batch * seq * e/2]` in radians. Returns the shape of `x`.
///
/// # Errors
/// [`Error::Shape`] when the count of angles is another.
pub fn rotate(x: &Tensor, angles: &[f32]) -> Result<Tensor> {
    let (batch, seq, _, e) = x.dims4()?;
    if e % 2 != 0 || angles.len() != batch * seq * e / 2 {
        let (actual, expected) =
            (format!("{} values", angles.len()), format!("{batch} x {seq} x {e} / 2 values"));
        return Err(Error::Shape { op: "rotate", argument: "angles", actual, expected });
    }
    let turns = angles.iter().map(|angle| angle.sin_cos()).collect();
    Ok(x.contiguous()?.apply_op1(RotateOp { turns })?)
}

struct RotateOp {
    /// Sine and cosine of every angle.
    turns: Arc<[(f32, f32)]>,
}

impl RotateOp {
    /// `direction` -1 turns back.
    fn turned(&self, x: &[f32], [heads, e]: [usize; 2], direction: f32) -> Vec<f32> {
        let mut y = x.to_vec();
        let tokens = y.par_chunks_exact_mut(heads * e).zip(self.turns.par_chunks_exact(e / 2));
        tokens.for_each(|(token, turns)| {
            for head in token.chunks_exact_mut(e) {
                let (first, second) = head.split_at_mut(e / 2);
                for ((a, b), &(sin, cos)) in first.iter_mut().zip(second).zip(turns) {
                    let (x, y, sin) = (*a, *b, direction * sin);
                    *a = x * cos - y * sin;
                    *b = y * cos + x * sin;
                }
            }
        });
        y
    }
}

impl CustomOp1 for RotateOp {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, _, heads, e) = layout.shape().dims4()?;
        let y = self.turned(contiguous(x, layout)?, [heads, e], 1.0);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (_, _, heads, e) = x.dims4()?;
        let dy = dy.contiguous()?;
        let dx = self.turned(&host_slice(&dy)?, [heads, e], -1.0);
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, random};

    #[test]
    fn pairs_turn_as_complex_numbers() {
        let x = Tensor::new(&[[[[1f32, 0.0, 0.0, 2.0]]]], &candle_core::Device::Cpu).unwrap();
        let quarter = std::f32::consts::FRAC_PI_2;
        let y: Vec<f32> = rotate(&x, &[quarter, quarter]).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let expected = [0.0, -2.0, 1.0, 0.0];
        assert!(y.iter().zip(expected).all(|(y, x)| (y - x).abs() < 1e-6), "{y:?}");
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let angles: Vec<f32> = (0..12).map(|i| i as f32 * 0.3).collect();
        check_gradients(&[random(&[2, 3, 2, 4], 1)], |args| rotate(&args[0], &angles));
    }

    #[test]
    fn a_wrong_number_of_angles_is_named() {
        let message = rotate(&random(&[1, 2, 1, 4], 1), &[0.0]).unwrap_err().to_string();
        assert!(message.contains("`angles` is 1 values"), "{message}");
    }
}
