//! CPU dropout.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::host::with_slice_mut;
use crate::rng::Dropout;

/// Elements of a task.
const CHUNK: usize = 1 << 13;

pub(crate) fn dropout(x: &Tensor, dropout: Dropout) -> Result<()> {
    with_slice_mut(x, |x| {
        x.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, x)| {
            let factors = dropout.factors((chunk * CHUNK) as u64);
            x.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor);
        });
    })
}
