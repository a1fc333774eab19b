//! Optimizer steps on parameters in place, and the norm that clips them.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor, bail};
use rayon::prelude::*;

use super::host::host_slice;
use crate::error::Result;
use crate::kernels::cpu::math;
use crate::kernels::cpu::optim as kernel;
pub use crate::kernels::cpu::optim::{AdamWStep, LionStep};

/// Elements of one task.
const CHUNK: usize = 1 << 15;

/// One Lion step: `param` (f32, contiguous) and `momentum` change in place, in one pass.
///
/// # Errors
/// When `param`, `momentum` and `grad` differ in length.
pub fn lion_step(param: &Tensor, momentum: &mut [f32], grad: &Tensor, step: &LionStep) -> Result<()> {
    let grad = grad.contiguous()?;
    let grad = host_slice(&grad)?;
    update(param, grad.len(), momentum.len(), |param| {
        param
            .par_chunks_mut(CHUNK)
            .zip(momentum.par_chunks_mut(CHUNK).zip(grad.par_chunks(CHUNK)))
            .for_each(|(param, (momentum, grad))| kernel::lion(param, momentum, grad, step));
    })
}

/// One AdamW step: `param` (f32, contiguous) and the moments `m` and `v` change in place, in one pass.
///
/// # Errors
/// When `param`, `m`, `v` and `grad` differ in length.
pub fn adamw_step(
    param: &Tensor,
    m: &mut [f32],
    v: &mut [f32],
    grad: &Tensor,
    step: &AdamWStep,
) -> Result<()> {
    let grad = grad.contiguous()?;
    let grad = host_slice(&grad)?;
    let state = if m.len() == v.len() { m.len() } else { usize::MAX };
    update(param, grad.len(), state, |param| {
        let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
        param
            .par_chunks_mut(CHUNK)
            .zip(moments.zip(grad.par_chunks(CHUNK)))
            .for_each(|(param, ((m, v), grad))| kernel::adamw(param, m, v, grad, step));
    })
}

/// The sum of squares of all elements, in f64 and in one order for any number of threads.
///
/// # Errors
/// When the tensor is not f32 on the CPU.
pub fn square_norm(tensor: &Tensor) -> Result<f64> {
    let tensor = tensor.contiguous()?;
    let partial: Vec<f64> = host_slice(&tensor)?.par_chunks(CHUNK).map(math::square_sum).collect();
    Ok(partial.iter().sum())
}

/// Replaces the elements of `param` (f32, contiguous) by `values`, in place.
///
/// # Errors
/// When lengths differ.
pub(crate) fn overwrite(param: &Tensor, values: &[f32]) -> Result<()> {
    update(param, values.len(), values.len(), |param| param.copy_from_slice(values))
}

/// Runs `change` on the elements of `param`, once the lengths are known to agree.
fn update(param: &Tensor, grad: usize, state: usize, change: impl FnOnce(&mut [f32])) -> Result<()> {
    let op = Update { lengths: [grad, state], change: RefCell::new(Some(change)) };
    Ok(param.inplace_op1(&op)?)
}

struct Update<F> {
    /// Elements of the gradient and of the state.
    lengths: [usize; 2],
    change: RefCell<Option<F>>,
}

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Update<F> {
    fn name(&self) -> &'static str {
        "optimizer step"
    }

    fn cpu_fwd(&self, param: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(param) = param else { bail!("an optimizer step needs an f32 parameter") };
        let Some((from, to)) = layout.contiguous_offsets() else {
            bail!("an optimizer step needs a contiguous parameter")
        };
        if self.lengths != [to - from; 2] {
            bail!("a parameter of {} elements has a gradient and a state of {:?}", to - from, self.lengths)
        }
        let change = self.change.borrow_mut().take().expect("an in-place op runs once");
        change(&mut param[from..to]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use candle_core::Var;

    #[test]
    fn lion_follows_its_formula() {
        let (param, grad) = (random(&[50], 1), random(&[50], 2));
        let var = Var::from_tensor(&param).unwrap();
        let mut momentum: Vec<f32> = random(&[50], 3).to_vec1().unwrap();
        let before = momentum.clone();
        let step = LionStep { lr: 0.1, decay: 0.01, beta1: 0.9, beta2: 0.99, grad_scale: 0.5 };
        lion_step(&var, &mut momentum, &grad, &step).unwrap();
        let (p, g, after) = (to_vec(&param), to_vec(&grad), to_vec(&var));
        for i in 0..50 {
            let g = 0.5 * g[i];
            let expected = p[i] * 0.99 - 0.1 * (0.9 * before[i] + 0.1 * g).signum();
            assert!((after[i] - expected).abs() < 1e-6);
            assert!((momentum[i] - (0.99 * before[i] + 0.01 * g)).abs() < 1e-6);
        }
    }

    #[test]
    fn the_first_adamw_step_has_the_size_of_the_rate() {
        let (param, grad) = (random(&[50], 1), random(&[50], 2));
        let var = Var::from_tensor(&param).unwrap();
        let (mut m, mut v) = (vec![0.0; 50], vec![0.0; 50]);
        let step =
            AdamWStep { lr: 0.1, decay: 0.0, beta1: 0.9, beta2: 0.95, eps: 1e-8, step: 1, grad_scale: 1.0 };
        adamw_step(&var, &mut m, &mut v, &grad, &step).unwrap();
        for ((before, after), g) in to_vec(&param).iter().zip(to_vec(&var)).zip(to_vec(&grad)) {
            assert!((before - after - 0.1 * g.signum()).abs() < 1e-5);
        }
    }

    #[test]
    fn lengths_must_agree() {
        let var = Var::from_tensor(&random(&[5], 1)).unwrap();
        let step = LionStep { lr: 0.1, decay: 0.0, beta1: 0.9, beta2: 0.99, grad_scale: 1.0 };
        assert!(lion_step(&var, &mut [0.0; 4], &random(&[5], 2), &step).is_err());
    }

    fn to_vec(tensor: &Tensor) -> Vec<f32> {
        tensor.to_vec1().unwrap()
    }
}
