//! Clipping to a symmetric range, as `clip_qkv` does.

use candle_core::Tensor;
use rayon::prelude::*;

use super::backend::of;
use super::host::change_in_place;
use crate::error::Result;

/// Values of one word of a mask.
const WORD: usize = 64;

/// Words of one task, at least.
const TASK_WORDS: usize = 256;

/// Which values of a tensor [`clip`] left as they were: one bit a value.
#[derive(Debug)]
pub struct ClipMask {
    words: Vec<u64>,
}

/// Limits `x` to `[-bound, bound]`, in place, and says which values lay within. `x` contiguous and not shared.
///
/// # Errors
/// When `x` is not f32.
pub fn clip(x: &Tensor, bound: f64) -> Result<ClipMask> {
    Ok(ClipMask { words: of(x)?.clip(x, bound)? })
}

/// Gradient of the input of [`clip`] in the place of that of its result, `dy`: 0 where a value was clipped.
///
/// # Errors
/// When `dy` is not f32.
pub fn clip_backward(dy: &Tensor, mask: &ClipMask) -> Result<()> {
    of(dy)?.clip_backward(dy, &mask.words)
}

pub(super) mod cpu {
    //! The loops on the processor.

    use super::*;

    pub(crate) fn clip(x: &Tensor, bound: f64) -> Result<Vec<u64>> {
        let bound = bound as f32;
        let mut words = vec![0u64; x.elem_count().div_ceil(WORD)];
        change_in_place(x, |x| {
            words.par_iter_mut().zip(x.par_chunks_mut(WORD)).with_min_len(TASK_WORDS).for_each(
                |(word, values)| {
                    for (bit, value) in values.iter_mut().enumerate() {
                        *word |= u64::from(value.abs() <= bound) << bit;
                        *value = value.clamp(-bound, bound);
                    }
                },
            );
        })?;
        Ok(words)
    }

    pub(crate) fn clip_backward(dy: &Tensor, words: &[u64]) -> Result<()> {
        change_in_place(dy, |dy| {
            words.par_iter().zip(dy.par_chunks_mut(WORD)).with_min_len(TASK_WORDS).for_each(|(word, dy)| {
                for (bit, dy) in dy.iter_mut().enumerate() {
                    *dy = if word >> bit & 1 == 1 { *dy } else { 0.0 };
                }
            });
        })
    }
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
            assert_eq!(clipped(&x).unwrap().0.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
                       x.clamp(-0.8, 0.8).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap());
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
