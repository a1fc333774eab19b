//! Clipping to a symmetric range, as `clip_qkv` does.

use candle_core::Tensor;

use super::device::backend_of;
use crate::error::Result;

/// Values that [`clip`] left unchanged, one bit a value.
#[derive(Debug)]
pub struct ClipMask {
    words: Vec<u64>,
}

/// Clips `x` to `[-bound, bound]` in place and returns the mask of values within; `x` is contiguous and not shared.
///
/// # Errors
/// When `x` is not f32.
pub fn clip(x: &Tensor, bound: f64) -> Result<ClipMask> {
    Ok(ClipMask { words: backend_of(x)?.clip(x, bound)? })
}

/// Gradient of the input of [`clip`], written over that of its result, `dy`: 0 for clipped values.
///
/// # Errors
/// When `dy` is not f32.
pub fn clip_backward(dy: &Tensor, mask: &ClipMask) -> Result<()> {
    backend_of(dy)?.clip_backward(dy, &mask.words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_backward, random};

    #[test]
    fn gradients_agree_with_the_formula_and_finite_differences() {
        for shape in [[3, 7], [5, 4000]] {
            let x = random(&shape, 1);
            let clipped = |x: &Tensor| {
                let y = x.copy()?;
                let mask = clip(&y, 0.8)?;
                Ok::<_, crate::Error>((y, mask))
            };
            assert_eq!(
                clipped(&x).unwrap().0.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
                x.clamp(-0.8, 0.8).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
            );
            if shape[1] < 10 {
                check_backward(
                    &[x],
                    |args| args[0].clamp(-0.8, 0.8),
                    |args| Ok(clipped(&args[0])?.0),
                    |args, dy| {
                        let dx = dy.copy()?;
                        clip_backward(&dx, &clipped(&args[0])?.1)?;
                        Ok(vec![dx])
                    },
                );
            }
        }
    }
}
