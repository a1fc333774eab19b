//! Dropout on the processor.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::host::change_in_place;
use crate::rng::Dropout;

/// Elements of one task.
const CHUNK: usize = 1 << 13;

pub(crate) fn dropout(x: &Tensor, dropout: Dropout) -> Result<()> {
    change_in_place(x, |x| {
        x.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, x)| {
            let factors = dropout.factors((chunk * CHUNK) as u64);
            x.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor);
        });
    })
}
