//! Optimizer steps on parameters in place, and the squared norm for clipping.

use candle_core::Tensor;

use super::device::backend_of;
use crate::error::{Error, Result};
use crate::kernels::cpu::optim::{AdamWStep, LionStep};

/// One Lion step in place, in one pass over `param`, `momentum` and `grad`.
///
/// # Errors
/// When `param`, `momentum` and `grad` differ in length or are not contiguous f32.
pub fn lion_step(param: &Tensor, momentum: &Tensor, grad: &Tensor, step: &LionStep) -> Result<()> {
    expect_lengths(param, &[momentum, grad])?;
    backend_of(param)?.lion_step(param, momentum, &grad.contiguous()?, step)
}

/// One AdamW step in place, in one pass over `param`, the moments `m` and `v`, and `grad`.
///
/// # Errors
/// When `param`, `m`, `v` and `grad` differ in length or are not contiguous f32.
pub fn adamw_step(param: &Tensor, [m, v]: [&Tensor; 2], grad: &Tensor, step: &AdamWStep) -> Result<()> {
    expect_lengths(param, &[m, v, grad])?;
    backend_of(param)?.adamw_step(param, [m, v], &grad.contiguous()?, step)
}

/// Sum of squares of all elements in f64; the order of additions does not depend on the number of threads.
///
/// # Errors
/// When the tensor is not f32.
pub fn square_norm(tensor: &Tensor) -> Result<f64> {
    backend_of(tensor)?.square_norm(&tensor.contiguous()?)
}

/// Overwrites the elements of `param`, f32 and contiguous, with `values`.
///
/// # Errors
/// When lengths differ.
pub(crate) fn overwrite(param: &Tensor, values: &[f32]) -> Result<()> {
    let values = Tensor::from_slice(values, values.len(), param.device())?;
    expect_lengths(param, &[&values])?;
    backend_of(param)?.overwrite(param, &values)
}

fn expect_lengths(param: &Tensor, others: &[&Tensor]) -> Result<()> {
    let n = param.elem_count();
    match others.iter().find(|other| other.elem_count() != n) {
        None => Ok(()),
        Some(other) => Err(Error::Shape {
            op: "optimizer step",
            argument: "state or gradient",
            actual: format!("{} values", other.elem_count()),
            expected: format!("{n}, as the parameter has"),
        }),
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
        let momentum = random(&[50], 3);
        let before = to_vec(&momentum);
        let step = LionStep { lr: 0.1, decay: 0.01, beta1: 0.9, beta2: 0.99, grad_scale: 0.5 };
        lion_step(&var, &momentum, &grad, &step).unwrap();
        let momentum = to_vec(&momentum);
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
        let (m, v) = (param.zeros_like().unwrap(), param.zeros_like().unwrap());
        let step =
            AdamWStep { lr: 0.1, decay: 0.0, beta1: 0.9, beta2: 0.95, eps: 1e-8, step: 1, grad_scale: 1.0 };
        adamw_step(&var, [&m, &v], &grad, &step).unwrap();
        for ((before, after), g) in to_vec(&param).iter().zip(to_vec(&var)).zip(to_vec(&grad)) {
            assert!((before - after - 0.1 * g.signum()).abs() < 1e-5);
        }
    }

    #[test]
    fn lengths_must_agree() {
        let var = Var::from_tensor(&random(&[5], 1)).unwrap();
        let step = LionStep { lr: 0.1, decay: 0.0, beta1: 0.9, beta2: 0.99, grad_scale: 1.0 };
        assert!(lion_step(&var, &random(&[4], 3), &random(&[5], 2), &step).is_err());
        assert!(lion_step(&var, &random(&[5], 3), &random(&[4], 2), &step).is_err());
    }

    fn to_vec(tensor: &Tensor) -> Vec<f32> {
        tensor.to_vec1().unwrap()
    }
}
