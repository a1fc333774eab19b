//! LoRA adapters: their variables, and the folder peft keeps them in.
//!
//! Source: Hu et al. 2021, section 4.1; peft's `tuners/lora`, names and scales.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::bounded_file::read_config;
use crate::config::MptConfig;
use crate::dtype::Precision;
use crate::error::{Error, Result};
use crate::parameter::Parameter;
use crate::params::{ModuleId, ParamId, ParamKind};
use crate::quoted::quoted;
use crate::rng::CounterRng;
use crate::source::{LoraWeights, ParameterSource};
use crate::weights::{open_tensors, write_safetensors};

/// How an adapter is made.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank of the two matrices.
    pub r: usize,
    /// Numerator of the scale.
    pub lora_alpha: f64,
    /// Linears that get one, by the last part of their name, such as `Wqkv`.
    pub target_modules: Vec<String>,
    /// Whether the scale's denominator is the rank's root.
    pub use_rslora: bool,
}

impl LoraConfig {
    fn scale(&self, rank: usize, alpha: f64) -> f64 {
        alpha / if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 }
    }
}

/// An adapter of a whole model.
#[derive(Debug)]
pub struct Adapter {
    config: LoraConfig,
    /// By the linear, in the order of names.
    layers: Vec<(ModuleId, Pair)>,
}

#[derive(Debug)]
struct Pair {
    a: Var,
    b: Var,
    scale: f64,
}

/// Keys of `adapter_config.json` that matter here.
#[derive(Debug, Deserialize)]
struct RawConfig {
    peft_type: Option<String>,
    r: usize,
    lora_alpha: f64,
    target_modules: Option<Value>,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
    bias: Option<String>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// Options of peft that change what an adapter computes and are not built.
const REFUSED: &[&str] = &[
    "fan_in_fan_out",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
];

const PREFIX: &str = "base_model.model.";

impl Adapter {
    /// A new adapter: `A` uniform between `-1/sqrt(in)` and `1/sqrt(in)`, `B` zero, as peft draws them.
    ///
    /// # Errors
    /// [`Error::Config`] when no linear of the model has a name in `target_modules`.
    pub fn init(model: &MptConfig, config: LoraConfig, seed: u64, device: &Device) -> Result<Self> {
        let is_target =
            |layer: ModuleId| config.target_modules.iter().any(|target| target == layer.module.short_name());
        let mut layers = Vec::new();
        for (layer, [rows, cols]) in linears(model).into_iter().filter(|&(layer, _)| is_target(layer)) {
            let mut rng = CounterRng::named(seed, &format!("{layer}.lora_A"));
            let limit = 1.0 / (cols as f32).sqrt();
            let a: Vec<f32> = (0..config.r * cols).map(|_| (2.0 * rng.uniform() - 1.0) * limit).collect();
            let a = Var::from_tensor(&Tensor::from_vec(a, (config.r, cols), device)?)?;
            let b = Var::zeros((rows, config.r), candle_core::DType::F32, device)?;
            let scale = config.scale(config.r, config.lora_alpha);
            layers.push((layer, Pair { a, b, scale }));
        }
        if layers.is_empty() {
            let actual = format!("{:?}", config.target_modules);
            let expected =
                "names of linears, such as \"Wqkv\", \"out_proj\", \"up_proj\", \"down_proj\"".to_owned();
            return Err(Error::Config { path: "lora".into(), field: "target_modules", actual, expected });
        }
        Ok(Self { config, layers })
    }

    /// Reads the folder of an adapter for a model of `model`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an option that is not built, and the errors of weights files, also where a tensor does
    /// not fit the model.
    pub fn open(dir: &Path, model: &MptConfig) -> Result<Self> {
        let path = dir.join("adapter_config.json");
        let raw: RawConfig = serde_json::from_str(&read_config(&path)?)
            .map_err(|source| Error::ConfigSyntax { path: path.clone(), source })?;
        raw.check(&path)?;
        let config = raw.lora_config();
        let weights = ["adapter_model.safetensors", "adapter_model.bin"].map(|name| dir.join(name));
        let weights = weights.iter().find(|path| path.is_file()).ok_or_else(|| Error::NoWeights {
            path: dir.to_owned(),
            hint: "; an adapter has `adapter_model.safetensors`".to_owned(),
        })?;
        let mut tensors = open_tensors(weights)?;
        let mut layers = Vec::new();
        for (layer, [rows, cols]) in linears(model) {
            let mut take = |half: &str| tensors.remove(&format!("{PREFIX}{layer}.{half}.weight"));
            let (a, b) = match (take("lora_A"), take("lora_B")) {
                (Some(a), Some(b)) => (a, b),
                (None, None) => continue,
                (a, _) => {
                    let half = if a.is_some() { "lora_B" } else { "lora_A" };
                    let name = format!("{PREFIX}{layer}.{half}.weight");
                    return Err(Error::MissingTensor { path: weights.clone(), name });
                }
            };
            let rank = a.shape().first().copied().unwrap_or(0);
            for (half, stored, expected) in [("lora_A", &a, [rank, cols]), ("lora_B", &b, [rows, rank])] {
                if stored.shape() != expected || rank == 0 {
                    let (actual, expected) = (stored.shape().to_vec(), expected.to_vec());
                    let name = format!("{PREFIX}{layer}.{half}.weight");
                    return Err(Error::TensorShape { path: weights.clone(), name, actual, expected });
                }
            }
            let scale = config.scale(rank, raw.alpha(&layer.to_string()));
            let var = |stored: &crate::storage::StoredTensor| {
                Ok::<_, Error>(Var::from_tensor(&stored.to_tensor(&Device::Cpu)?)?)
            };
            layers.push((layer, Pair { a: var(&a)?, b: var(&b)?, scale }));
        }
        if let Some(name) = tensors.into_keys().next() {
            let instead =
                "expected lora_A and lora_B of this model's linears; is this the adapter's base model?";
            return Err(Error::UnexpectedTensor { path: weights.clone(), name, instead });
        }
        Ok(Self { config, layers })
    }

    /// Writes the folder as peft reads it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, dir: &Path, base_model: &str) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir, "creating"))?;
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "r": self.config.r,
            "lora_alpha": self.config.lora_alpha,
            "lora_dropout": 0.0,
            "target_modules": self.config.target_modules,
            "use_rslora": self.config.use_rslora,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
        });
        let path = dir.join("adapter_config.json");
        let text = serde_json::to_string_pretty(&config).expect("a JSON value can be printed") + "\n";
        std::fs::write(&path, text).map_err(Error::io(&path, "writing"))?;
        let tensors: Vec<(String, &Tensor)> =
            self.vars().map(|(name, var)| (name, var.as_tensor())).collect();
        write_safetensors(
            &dir.join("adapter_model.safetensors"),
            tensors.iter().map(|(name, tensor)| (name.as_str(), *tensor)),
        )
    }

    /// The variables under peft's names, in the order of layers.
    pub fn vars(&self) -> impl Iterator<Item = (String, &Var)> {
        self.params().map(|(id, var)| (format!("{PREFIX}{id}"), var))
    }

    /// The variables, in the order of layers.
    pub fn params(&self) -> impl Iterator<Item = (ParamId, &Var)> {
        self.layers.iter().flat_map(|(layer, pair)| {
            [(layer.param(ParamKind::LoraA), &pair.a), (layer.param(ParamKind::LoraB), &pair.b)]
        })
    }

    /// How it was made.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// What it adds to the linear `layer`.
    pub fn layer(&self, layer: ModuleId) -> Option<LoraWeights> {
        let (_, pair) = self.layers.iter().find(|(known, _)| *known == layer)?;
        Some(LoraWeights { a: pair.a.as_tensor().clone(), b: pair.b.as_tensor().clone(), scale: pair.scale })
    }
}

impl RawConfig {
    fn check(&self, path: &Path) -> Result<()> {
        let refuse = |field, actual: String, instead| {
            Err(Error::Unsupported { path: path.to_owned(), field, actual: quoted(&actual), instead })
        };
        let is_plain =
            |key: &str| key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte));
        if let Some(key) = self.alpha_pattern.keys().find(|key| !is_plain(key)) {
            let instead = "write names of layers instead of a regular expression";
            return refuse("alpha_pattern", key.clone(), instead);
        }
        if let Some(kind) = self.peft_type.as_deref().filter(|kind| *kind != "LORA") {
            return refuse("peft_type", kind.to_owned(), "only LoRA adapters are read");
        }
        if let Some(bias) = self.bias.as_deref().filter(|bias| *bias != "none") {
            return refuse("bias", bias.to_owned(), "train the adapter with bias = \"none\"");
        }
        let is_set = |key: &str| match self.other.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Array(items)) => !items.is_empty(),
            Some(_) => true,
        };
        match REFUSED.iter().find(|key| is_set(key)) {
            Some(field) => {
                refuse(field, "set".to_owned(), "train the adapter without it, or merge it with peft")
            }
            None if self.r == 0 => {
                let (actual, expected) = ("0".to_owned(), "at least 1".to_owned());
                Err(Error::Config { path: path.to_owned(), field: "r", actual, expected })
            }
            None => Ok(()),
        }
    }

    fn lora_config(&self) -> LoraConfig {
        let target_modules = match &self.target_modules {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(name)) => vec![name.clone()],
            _ => Vec::new(),
        };
        LoraConfig { r: self.r, lora_alpha: self.lora_alpha, target_modules, use_rslora: self.use_rslora }
    }

    /// The numerator of a layer's scale: its own where `alpha_pattern` names the layer or the end of its name.
    fn alpha(&self, layer: &str) -> f64 {
        let names =
            |key: &str| layer.strip_suffix(key).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let own = self.alpha_pattern.iter().find(|(key, _)| names(key));
        own.map_or(self.lora_alpha, |(_, &alpha)| alpha)
    }
}

/// The linears of all blocks with their shapes, in the order of names.
fn linears(model: &MptConfig) -> Vec<(ModuleId, [usize; 2])> {
    let linears = model.parameters().filter(|(id, _)| id.is_block_linear());
    let mut linears: Vec<_> =
        linears.filter_map(|(id, shape)| Some((id.module, shape.try_into().ok()?))).collect();
    linears.sort_by_cached_key(|(layer, _)| layer.to_string());
    linears
}

/// A model's parameters with an adapter.
#[derive(Clone, Copy)]
pub struct Adapted<'a> {
    /// The model.
    pub base: &'a dyn ParameterSource,
    /// The adapter.
    pub adapter: &'a Adapter,
}

impl std::fmt::Debug for Adapted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adapted").field("adapter", &self.adapter.config).finish_non_exhaustive()
    }
}

impl ParameterSource for Adapted<'_> {
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
