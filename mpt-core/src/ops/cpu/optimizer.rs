//! CPU optimizer steps.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::host::{host_slice, with_slice_mut};
use crate::kernels::cpu::math;
use crate::kernels::cpu::optim::{self as kernel, AdamWStep, LionStep};

/// Elements of a task.
const CHUNK: usize = 1 << 15;

pub(crate) fn lion_step(param: &Tensor, momentum: &Tensor, grad: &Tensor, step: &LionStep) -> Result<()> {
    let grad = host_slice(grad)?;
    with_slice_mut(param, |param| {
        with_slice_mut(momentum, |momentum| {
            param
                .par_chunks_mut(CHUNK)
                .zip(momentum.par_chunks_mut(CHUNK).zip(grad.par_chunks(CHUNK)))
                .for_each(|(param, (momentum, grad))| kernel::lion(param, momentum, grad, step));
        })
    })?
}

pub(crate) fn adamw_step(
    param: &Tensor,
    [m, v]: [&Tensor; 2],
    grad: &Tensor,
    step: &AdamWStep,
) -> Result<()> {
    let grad = host_slice(grad)?;
    let run = |param: &mut [f32], m: &mut [f32], v: &mut [f32]| {
        let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
        param
            .par_chunks_mut(CHUNK)
            .zip(moments.zip(grad.par_chunks(CHUNK)))
            .for_each(|(param, ((m, v), grad))| kernel::adamw(param, m, v, grad, step));
    };
    with_slice_mut(param, |param| with_slice_mut(m, |m| with_slice_mut(v, |v| run(param, m, v))))??
}

pub(crate) fn overwrite(param: &Tensor, values: &Tensor) -> Result<()> {
    let values = host_slice(values)?;
    with_slice_mut(param, |param| param.copy_from_slice(&values))
}

pub(crate) fn square_norm(tensor: &Tensor) -> Result<f64> {
    let partial: Vec<f64> = host_slice(tensor)?.par_chunks(CHUNK).map(math::square_sum).collect();
    Ok(partial.iter().sum())
}
