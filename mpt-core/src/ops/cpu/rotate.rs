//! CPU rotary embedding.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::host::{host_slice, tensor_like};

/// Rotates by `direction` times the angles.
pub(crate) fn rotate(x: &Tensor, angles: &[f32], direction: f32) -> Result<Tensor> {
    let (_, heads, e) = x.dims3()?;
    let mut y = host_slice(x)?.to_vec();
    let tokens = y.par_chunks_exact_mut((heads * e).max(1)).zip(angles.par_chunks_exact((e / 2).max(1)));
    tokens.for_each(|(token, angles)| {
        let rotations: Vec<(f32, f32)> = angles.iter().map(|angle| angle.sin_cos()).collect();
        for head in token.chunks_exact_mut(e) {
            let (first, second) = head.split_at_mut(e / 2);
            for ((a, b), &(sin, cos)) in first.iter_mut().zip(second).zip(&rotations) {
                let (x, y, sin) = (*a, *b, direction * sin);
                *a = x * cos - y * sin;
                *b = y * cos + x * sin;
            }
        }
    });
    tensor_like(y, x)
}
