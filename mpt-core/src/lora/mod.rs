//! LoRA adapters: the low-rank matrices of a model's linears as variables.
//!
//! `folder` reads and writes peft's folder, `config` its configuration. The layer that runs an adapter is `nn/lora.rs`.
//!
//! Source: Hu et al. 2021, section 4.1; peft's `tuners/lora`, names and scales.

mod config;
mod folder;

use candle_core::{DType, Device, Tensor, Var};

use crate::config::MptConfig;
use crate::dtype::Precision;
use crate::error::{Error, Result};
use crate::parameter::Parameter;
use crate::params::{ModuleId, ParamId, ParamKind};
use crate::rng::CounterRng;
use crate::source::{LoraWeights, ParameterSource};

pub use config::LoraConfig;

/// LoRA adapter of a model.
#[derive(Debug)]
pub struct Adapter {
    config: LoraConfig,
    /// WithAdapter linears, in the order of names.
    layers: Vec<(ModuleId, LoraMatrices)>,
}

/// Matrices of one adapted linear.
#[derive(Debug)]
struct LoraMatrices {
    /// `[rank, in]`
    a: Var,
    /// `[out, rank]`
    b: Var,
    scale: f64,
}

impl Adapter {
    /// New adapter, initialized as in peft: A uniform in `±1/sqrt(in)`, B zero.
    ///
    /// # Errors
    /// [`Error::Config`] when `target_modules` names no linear of the model.
    pub fn init(model: &MptConfig, config: LoraConfig, seed: u64, device: &Device) -> Result<Self> {
        let is_target =
            |layer: ModuleId| config.target_modules.iter().any(|target| target == layer.module.short_name());
        let mut layers = Vec::new();
        for (layer, [rows, cols]) in block_linears(model).into_iter().filter(|&(layer, _)| is_target(layer)) {
            let mut rng = CounterRng::named(seed, &format!("{layer}.lora_A"));
            let limit = 1.0 / (cols as f32).sqrt();
            let a: Vec<f32> = (0..config.r * cols).map(|_| (2.0 * rng.uniform() - 1.0) * limit).collect();
            let a = Var::from_tensor(&Tensor::from_vec(a, (config.r, cols), device)?)?;
            let b = Var::zeros((rows, config.r), DType::F32, device)?;
            let scale = config.scale(config.r, config.lora_alpha);
            layers.push((layer, LoraMatrices { a, b, scale }));
        }
        if layers.is_empty() {
            let actual = format!("{:?}", config.target_modules);
            let expected =
                "names of linears, such as \"Wqkv\", \"out_proj\", \"up_proj\", \"down_proj\"".to_owned();
            return Err(Error::Config { path: "lora".into(), field: "target_modules", actual, expected });
        }
        Ok(Self { config, layers })
    }

    /// Variables by peft's tensor names, in the order of layers.
    pub fn vars(&self) -> impl Iterator<Item = (String, &Var)> {
        self.params().map(|(id, var)| (format!("{}{id}", folder::PREFIX), var))
    }

    /// Variables by parameter id, in the order of layers.
    pub fn params(&self) -> impl Iterator<Item = (ParamId, &Var)> {
        self.layers.iter().flat_map(|(layer, matrices)| {
            [(layer.param(ParamKind::LoraA), &matrices.a), (layer.param(ParamKind::LoraB), &matrices.b)]
        })
    }

    /// Configuration.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// Matrices and scale of the linear `layer`; `None` when it is not adapted.
    pub fn layer(&self, layer: ModuleId) -> Option<LoraWeights> {
        let (_, LoraMatrices { a, b, scale }) = self.layers.iter().find(|(known, _)| *known == layer)?;
        Some(LoraWeights { a: a.as_tensor().clone(), b: b.as_tensor().clone(), scale: *scale })
    }
}

/// Linears of all blocks with their shapes `[out, in]`, in the order of names.
fn block_linears(model: &MptConfig) -> Vec<(ModuleId, [usize; 2])> {
    let linears = model.parameters().filter(|(id, _)| id.is_block_linear());
    let mut linears: Vec<_> =
        linears.filter_map(|(id, shape)| Some((id.module, shape.try_into().ok()?))).collect();
    linears.sort_by_cached_key(|(layer, _)| layer.to_string());
    linears
}

/// Parameter source with an adapter over it.
#[derive(Clone, Copy)]
pub struct WithAdapter<'a> {
    /// Parameters of the base model.
    pub base: &'a dyn ParameterSource,
    /// Adapter.
    pub adapter: &'a Adapter,
}

impl std::fmt::Debug for WithAdapter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WithAdapter").field("adapter", &self.adapter.config).finish_non_exhaustive()
    }
}

impl ParameterSource for WithAdapter<'_> {
    fn get(&self, id: ParamId, shape: &[usize]) -> Result<Parameter> {
        self.base.get(id, shape)
    }

    fn precision(&self) -> Precision {
        self.base.precision()
    }

    fn lora(&self, module: ModuleId) -> Option<LoraWeights> {
        self.adapter.layer(module)
    }
}
