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
use crate::error::{Error, Result, damaged};
use crate::parameter::Parameter;
use crate::params::{ModuleId, ParamId, ParamKind};
use crate::quoted::quoted;
use crate::rng::CounterRng;
use crate::source::{LoraWeights, ParameterSource};
use crate::storage::StoredTensor;
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
    layers_to_transform: Option<Value>,
    exclude_modules: Option<Value>,
    #[serde(default)]
    use_rslora: bool,
    alpha_pattern: Option<BTreeMap<String, f64>>,
    rank_pattern: Option<BTreeMap<String, usize>>,
    init_lora_weights: Option<Value>,
    bias: Option<String>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// Keys that change nothing of what an adapter computes: where it comes from, how it was trained and drawn, and options of
/// methods that have to be asked for by another key.
const BYSTANDERS: &[&str] = &[
    "_custom_modules",
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "layers_pattern",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// Ways to draw `A` and `B` that leave the base model as it is; others, such as `pissa` and `olora`, subtract from it.
const INITIAL_WEIGHTS: &[&str] = &["gaussian", "orthogonal", "eva"];

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
    /// [`Error::Unsupported`] and [`Error::UnsupportedOption`] for an option that is not built, and the errors of weights
    /// files, also where a tensor does not fit the model or the configuration, is missing, or holds what is no number.
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
        for (layer, shape) in linears(model) {
            let mut take = |half: &str| tensors.remove(&tensor_name(layer, half));
            let halves = match (take("lora_A"), take("lora_B")) {
                (None, None) if !raw.is_target(layer) => continue,
                (Some(a), Some(b)) => [a, b],
                (a, _) => {
                    let name = tensor_name(layer, if a.is_some() { "lora_B" } else { "lora_A" });
                    return Err(Error::MissingTensor { path: weights.clone(), name });
                }
            };
            let rank = check_pair(weights, layer, &halves, shape, raw.rank(&layer.to_string()))?;
            let scale = config.scale(rank, raw.alpha(&layer.to_string()));
            let var =
                |stored: &StoredTensor| Ok::<_, Error>(Var::from_tensor(&stored.to_tensor(&Device::Cpu)?)?);
            layers.push((layer, Pair { a: var(&halves[0])?, b: var(&halves[1])?, scale }));
        }
        if let Some(name) = tensors.into_keys().next() {
            let instead =
                "expected lora_A and lora_B of this model's linears; is this the adapter's base model?";
            return Err(Error::UnexpectedTensor { path: weights.clone(), name, instead });
        }
        if layers.is_empty() {
            let expected = "lora_A and lora_B of this model's linears; save or fetch the adapter again";
            return Err(damaged(weights, "no tensor of an adapter", expected));
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

fn tensor_name(layer: ModuleId, half: &str) -> String {
    format!("{PREFIX}{layer}.{half}.weight")
}

/// Checks the two matrices of a linear `[rows, cols]`: their shapes, that their rank is `expected`, and their values.
/// Returns the rank.
fn check_pair(
    path: &Path,
    layer: ModuleId,
    halves: &[StoredTensor; 2],
    [rows, cols]: [usize; 2],
    expected: usize,
) -> Result<usize> {
    let rank = halves[0].shape().first().copied().unwrap_or(0);
    for (half, stored, shape) in [("lora_A", &halves[0], [rank, cols]), ("lora_B", &halves[1], [rows, rank])]
    {
        let name = tensor_name(layer, half);
        if stored.shape() != shape || rank == 0 {
            let (actual, expected) = (stored.shape().to_vec(), shape.to_vec());
            return Err(Error::TensorShape { path: path.to_owned(), name, actual, expected });
        }
        if rank != expected {
            let found = format!("tensor `{name}` of rank {rank}");
            let found = format!("{found}, where adapter_config.json says {expected}");
            return Err(damaged(
                path,
                found,
                "the rank of `r`, or of `rank_pattern` where it names the layer",
            ));
        }
        if let Some(at) = stored.first_non_finite() {
            let found = format!("tensor `{name}`, whose value {at} is not finite");
            return Err(damaged(
                path,
                found,
                "finite numbers; the training diverged, or the file is damaged",
            ));
        }
    }
    Ok(rank)
}

/// Whether `key` is `name`, or the end of it after a dot.
fn ends_name(name: &str, key: &str) -> bool {
    name.strip_suffix(key).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The value of the pattern that names the layer or the end of its name.
fn of_pattern<T: Copy>(pattern: Option<&BTreeMap<String, T>>, layer: &str) -> Option<T> {
    pattern?.iter().find(|(key, _)| ends_name(layer, key)).map(|(_, &value)| value)
}

impl RawConfig {
    fn check(&self, path: &Path) -> Result<()> {
        let refuse = |field, actual: String, instead| {
            Err(Error::Unsupported { path: path.to_owned(), field, actual: quoted(&actual), instead })
        };
        let patterns = [
            ("alpha_pattern", self.alpha_pattern.iter().flat_map(BTreeMap::keys).find(|key| !is_plain(key))),
            ("rank_pattern", self.rank_pattern.iter().flat_map(BTreeMap::keys).find(|key| !is_plain(key))),
        ];
        if let Some((field, key)) = patterns.into_iter().find_map(|(field, key)| Some((field, key?))) {
            return refuse(field, key.clone(), "write names of layers instead of a regular expression");
        }
        if let Some(kind) = self.peft_type.as_deref().filter(|kind| *kind != "LORA") {
            return refuse("peft_type", kind.to_owned(), "only LoRA adapters are read");
        }
        if let Some(bias) = self.bias.as_deref().filter(|bias| *bias != "none") {
            return refuse("bias", bias.to_owned(), "train the adapter with bias = \"none\"");
        }
        if let Some(way) = self.init_lora_weights.as_ref().filter(|way| !leaves_base(way)) {
            let instead = "it changes the base model; convert the adapter with peft's `save_pretrained(.., \
                           path_initial_model_for_weight_conversion=..)`, or merge it with peft";
            return refuse("init_lora_weights", way.to_string(), instead);
        }
        if let Some((key, value)) = self.other.iter().find(|(key, value)| is_wish(key, value)) {
            return Err(Error::UnsupportedOption {
                path: path.to_owned(),
                field: quoted(key),
                actual: quoted(&value.to_string()),
                instead: "it may change what the adapter computes; train the adapter without it, or merge it \
                          with peft",
            });
        }
        if self.r == 0 {
            let (actual, expected) = ("0".to_owned(), "at least 1".to_owned());
            return Err(Error::Config { path: path.to_owned(), field: "r", actual, expected });
        }
        Ok(())
    }

    /// Whether the configuration asks for an adapter of `layer`, as far as it does so by names: a regular expression says
    /// nothing here.
    fn is_target(&self, layer: ModuleId) -> bool {
        let name = layer.to_string();
        let names = |value: Option<&Value>| match value {
            Some(Value::Array(keys)) => {
                keys.iter().filter_map(Value::as_str).any(|key| ends_name(&name, key))
            }
            Some(Value::String(all)) => all == "all-linear",
            _ => false,
        };
        let number =
            |value: &Value| value.as_u64().is_some_and(|number| Some(number as usize) == layer.layer);
        let in_layers = match &self.layers_to_transform {
            None | Some(Value::Null) => true,
            Some(Value::Array(layers)) => layers.iter().any(number),
            Some(layer) => number(layer),
        };
        let excluded = match &self.exclude_modules {
            Some(Value::String(_)) => true,
            excluded => names(excluded.as_ref()),
        };
        in_layers && names(self.target_modules.as_ref()) && !excluded
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
        of_pattern(self.alpha_pattern.as_ref(), layer).unwrap_or(self.lora_alpha)
    }

    /// The rank of a layer's matrices: its own where `rank_pattern` names the layer or the end of its name.
    fn rank(&self, layer: &str) -> usize {
        of_pattern(self.rank_pattern.as_ref(), layer).unwrap_or(self.r)
    }
}

/// Whether a key of a pattern is a name, in which a dot stands for itself.
fn is_plain(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte))
}

/// Whether drawing an adapter's weights in this way leaves those of the base model as they are.
fn leaves_base(way: &Value) -> bool {
    match way {
        Value::Null | Value::Bool(_) => true,
        Value::String(name) => INITIAL_WEIGHTS.contains(&name.as_str()),
        _ => false,
    }
}

/// Whether a key asks for something: it is none that changes nothing, and is set to more than its absence.
fn is_wish(key: &str, value: &Value) -> bool {
    let is_set = match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        _ => true,
    };
    is_set && !BYSTANDERS.contains(&key)
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
