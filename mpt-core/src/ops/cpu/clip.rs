//! CPU clipping.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::host::with_slice_mut;

/// Values of a word of the mask.
const WORD: usize = 64;

/// Words of a task at least.
const TASK_WORDS: usize = 256;

pub(crate) fn clip(x: &Tensor, bound: f64) -> Result<Vec<u64>> {
    let bound = bound as f32;
    let mut words = vec![0u64; x.elem_count().div_ceil(WORD)];
    with_slice_mut(x, |x| {
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
    with_slice_mut(dy, |dy| {
        words.par_iter().zip(dy.par_chunks_mut(WORD)).with_min_len(TASK_WORDS).for_each(|(word, dy)| {
            for (bit, dy) in dy.iter_mut().enumerate() {
                *dy = if word >> bit & 1 == 1 { *dy } else { 0.0 };
            }
        });
    })
}
