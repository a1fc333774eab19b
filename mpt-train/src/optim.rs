//! Optimizers with decoupled weight decay, Lion and AdamW: their state and their step.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use mpt_core::ops::{AdamWStep, LionStep, adamw_step, lion_step};
use mpt_core::{Gradients, Params, write_safetensors};

use crate::config::OptimizerConfig;
use crate::error::{Error, Result};

/// Optimizer with its state: one or two f32 moments per parameter.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// Moments by parameter name, flat, on the parameter's device: Lion's momentum, or AdamW's first and second moment.
    state: BTreeMap<String, Vec<Tensor>>,
}

impl Optimizer {
    /// Optimizer of `params` with moments of zero.
    ///
    /// # Errors
    /// When the device has too little memory.
    pub fn new(config: &OptimizerConfig, params: &Params) -> Result<Self> {
        let zeros = |(name, var): (&str, &Var)| {
            let moment = |_| Tensor::zeros(var.elem_count(), DType::F32, var.device());
            let moments = config.moments().iter().map(moment).collect::<candle_core::Result<Vec<_>>>()?;
            Ok((name.to_owned(), moments))
        };
        Ok(Self { config: config.clone(), state: params.iter().map(zeros).collect::<Result<_>>()? })
    }

    /// Updates every parameter. `multiplier` is the schedule's, `grad_scale` scales the gradients first, `step` counts
    /// from 1.
    ///
    /// Weight decay is `p *= 1 - multiplier * weight_decay`: decoupled from the base rate, as in Composer's
    /// `DecoupledAdamW` and `DecoupledLionW`. It applies to every parameter, as there.
    ///
    /// # Errors
    /// [`mpt_core::Error`] when the sizes of a gradient and its parameter differ.
    pub fn step(
        &self,
        params: &Params,
        gradients: &Gradients,
        multiplier: f64,
        grad_scale: f32,
        step: u64,
    ) -> Result<()> {
        for (name, var) in params.iter() {
            let gradient = gradients.get(name)?;
            let state = self.state.get(name).expect("every parameter has a state");
            apply(&self.config, state, var, gradient, multiplier, grad_scale, step)?;
        }
        Ok(())
    }

    /// Writes the moments to a safetensors file, as tensors `<moment>.<parameter>`.
    ///
    /// # Errors
    /// [`mpt_core::Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = BTreeMap::new();
        for (name, moments) in &self.state {
            for (moment, values) in self.config.moments().iter().zip(moments) {
                tensors.insert(format!("{moment}.{name}"), values.clone());
            }
        }
        Ok(write_safetensors(path, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))?)
    }

    /// Reads the moments that [`Optimizer::save`] wrote for the same parameters.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming a tensor that is missing or has another size.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu)
            .map_err(|error| Error::unparsed(path, error))?;
        for (name, moments) in &mut self.state {
            for (moment, values) in self.config.moments().iter().zip(moments) {
                let key = format!("{moment}.{name}");
                let is_sound = |found: &&Tensor| found.dtype() == DType::F32 && found.dims() == values.dims();
                let found = tensors.get(&key).filter(is_sound).ok_or_else(|| {
                    let n = values.elem_count();
                    Error::checkpoint(path, format!("`{key}` is missing or has not {n} f32 values"))
                })?;
                *values = found.to_device(values.device())?;
            }
        }
        Ok(())
    }
}

/// Updates one parameter and its moments.
fn apply(
    config: &OptimizerConfig,
    state: &[Tensor],
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
            adamw_step(
                param,
                [m, v],
                gradient,
                &AdamWStep { lr, decay, beta1, beta2, eps, step, grad_scale },
            )?;
        }
        _ => unreachable!("the state was made for this optimizer"),
    }
    Ok(())
}
