//! Optimizer steps in one pass over a parameter and its state.

use super::dispatch::for_each_level;

/// One Lion step (Chen et al. 2023, algorithm 2) with decoupled decay.
#[derive(Clone, Copy, Debug)]
pub struct LionStep {
    /// Learning rate of this step.
    pub lr: f32,
    /// Share of the parameter taken away before the step: `p *= 1 - decay`.
    pub decay: f32,
    /// Weight of the momentum in the update.
    pub beta1: f32,
    /// Weight of the momentum in its own average.
    pub beta2: f32,
    /// Factor applied to the gradient first: the mean over tokens and the clip by global norm.
    pub grad_scale: f32,
}

/// One AdamW step (Loshchilov and Hutter 2019) with decoupled decay.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub lr: f32,
    /// Share of the parameter taken away before the step: `p *= 1 - decay`.
    pub decay: f32,
    /// Average of the gradient.
    pub beta1: f32,
    /// Average of the squared gradient.
    pub beta2: f32,
    /// Added to the denominator.
    pub eps: f32,
    /// Number of this step, the first is 1.
    pub step: u64,
    /// Factor applied to the gradient first: the mean over tokens and the clip by global norm.
    pub grad_scale: f32,
}

for_each_level! {
    /// Updates `param` and `momentum` in place.
    pub(crate) fn lion(param: &mut [f32], momentum: &mut [f32], grad: &[f32], step: &LionStep) {
        let keep = 1.0 - step.decay;
        for ((p, m), &g) in param.iter_mut().zip(momentum).zip(grad) {
            let g = g * step.grad_scale;
            let direction = step.beta1 * *m + (1.0 - step.beta1) * g;
            let sign = if direction > 0.0 { 1.0 } else if direction < 0.0 { -1.0 } else { 0.0 };
            *p = *p * keep - step.lr * sign;
            *m = step.beta2 * *m + (1.0 - step.beta2) * g;
        }
    }

    /// Updates `param`, the first moment `m` and the second moment `v` in place.
    pub(crate) fn adamw(param: &mut [f32], m: &mut [f32], v: &mut [f32], grad: &[f32], step: &AdamWStep) {
        let keep = 1.0 - step.decay;
        let power = i32::try_from(step.step).unwrap_or(i32::MAX);
        let rate = (f64::from(step.lr) / (1.0 - f64::from(step.beta1).powi(power))) as f32;
        let root = (1.0 - f64::from(step.beta2).powi(power)).sqrt() as f32;
        for (((p, m), v), &g) in param.iter_mut().zip(m).zip(v).zip(grad) {
            let g = g * step.grad_scale;
            *m = step.beta1 * *m + (1.0 - step.beta1) * g;
            *v = step.beta2 * *v + (1.0 - step.beta2) * g * g;
            *p = *p * keep - rate * *m / (v.sqrt() / root + step.eps);
        }
    }
}
