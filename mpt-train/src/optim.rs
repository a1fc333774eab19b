//! Optimizer state and steps: Lion and AdamW with decoupled weight decay.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use mpt_core::ops::optim::{AdamWStep, LionStep, adamw_step, lion_step};
use mpt_core::{Params, write_safetensors};

use crate::config::OptimizerConfig;
use crate::error::{Error, Result};
use crate::segments::Gradients;

/// The state of an optimizer: one or two numbers a parameter, f32.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// By name of the parameter; Lion's momentum, or AdamW's first and second moment.
    state: BTreeMap<String, Vec<Vec<f32>>>,
}

impl Optimizer {
    /// A fresh state for `params`: zeros.
    pub fn new(config: &OptimizerConfig, params: &Params) -> Self {
        let zeros = |n: usize| vec![vec![0.0; n]; config.moments().len()];
        let state = params.iter().map(|(name, var)| (name.to_owned(), zeros(var.elem_count()))).collect();
        Self { config: config.clone(), state }
    }

    /// One step on every parameter. `multiplier` is the schedule's, `grad_scale` is applied to gradients first, `step`
    /// counts from 1.
    ///
    /// The decay is `p *= 1 - multiplier * weight_decay`: decoupled from the base rate, as in Composer's
    /// `DecoupledAdamW` and `DecoupledLionW`. It applies to every parameter, as there.
    ///
    /// # Errors
    /// [`mpt_core::Error`] when a gradient has another size than its parameter.
    pub fn step(
        &mut self,
        params: &Params,
        gradients: &Gradients,
        multiplier: f64,
        grad_scale: f32,
        step: u64,
    ) -> Result<()> {
        for (name, var) in params.iter() {
            let gradient = gradients.get(name)?;
            let state = self.state.get_mut(name).expect("every parameter has a state");
            apply(&self.config, state, var, gradient, multiplier, grad_scale, step)?;
        }
        Ok(())
    }

    /// Writes the state as one safetensors file, tensors named `<moment>.<parameter>`.
    ///
    /// # Errors
    /// [`mpt_core::Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = BTreeMap::new();
        for (name, moments) in &self.state {
            for (moment, values) in self.config.moments().iter().zip(moments) {
                let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
                tensors.insert(format!("{moment}.{name}"), tensor);
            }
        }
        Ok(write_safetensors(path, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))?)
    }

    /// Reads the state that [`Optimizer::save`] wrote for the same parameters.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the tensor that is missing or has another size.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let tensors =
            candle_core::safetensors::load(path, &Device::Cpu).map_err(|e| Error::checkpoint(path, e))?;
        for (name, moments) in &mut self.state {
            for (moment, values) in self.config.moments().iter().zip(moments) {
                let key = format!("{moment}.{name}");
                let found = tensors.get(&key).and_then(|tensor| tensor.to_vec1::<f32>().ok());
                let found = found.filter(|found| found.len() == values.len());
                *values = found.ok_or_else(|| {
                    Error::checkpoint(
                        path,
                        format!("`{key}` is missing or has not {} f32 values", values.len()),
                    )
                })?;
            }
        }
        Ok(())
    }
}

fn apply(
    config: &OptimizerConfig,
    state: &mut [Vec<f32>],
    param: &Tensor,
    gradient: &Tensor,
    multiplier: f64,
    grad_scale: f32,
    step: u64,
) -> Result<()> {
    let lr = (config.lr() * multiplier) as f32;
    let decay = (config.weight_decay() * multiplier) as f32;
    let [beta1, beta2] = config.betas().map(|beta| beta as f32);
    match (config, state) {
        (OptimizerConfig::Lion { .. }, [momentum]) => {
            lion_step(param, momentum, gradient, &LionStep { lr, decay, beta1, beta2, grad_scale })?;
        }
        (OptimizerConfig::AdamW { eps, .. }, [m, v]) => {
            let eps = *eps as f32;
            adamw_step(param, m, v, gradient, &AdamWStep { lr, decay, beta1, beta2, eps, step, grad_scale })?;
        }
        _ => unreachable!("the state was made for this optimizer"),
    }
    Ok(())
}
