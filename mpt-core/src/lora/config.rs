//! Configuration of a LoRA adapter: ours, and peft's `adapter_config.json` as read.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::bounded_file::read_config;
use crate::error::{Error, Result};
use crate::params::ModuleId;
use crate::quoted::quoted;

/// Configuration of a LoRA adapter, under peft's names.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank of the two matrices.
    pub r: usize,
    /// Numerator of the scale.
    pub lora_alpha: f64,
    /// Linears to adapt, by the last component of their name, such as `Wqkv`.
    pub target_modules: Vec<String>,
    /// Whether the scale is `lora_alpha / sqrt(r)`, not `lora_alpha / r`.
    pub use_rslora: bool,
}

impl LoraConfig {
    /// Factor on `B A` for a layer's rank and alpha.
    pub(super) fn scale(&self, rank: usize, alpha: f64) -> f64 {
        alpha / if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 }
    }
}

/// Keys of `adapter_config.json` that are read.
#[derive(Debug, Deserialize)]
pub(super) struct RawAdapterConfig {
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

/// Keys that do not change the adapter's result: origin, training, initialization, and options of methods that another
/// key turns on.
const IGNORED_KEYS: &[&str] = &[
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

/// Values of `init_lora_weights` that keep the base model's weights; others, such as `pissa` and `olora`, change them.
const SUPPORTED_INITS: &[&str] = &["gaussian", "orthogonal", "eva"];

impl RawAdapterConfig {
    /// Reads and checks an `adapter_config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::ConfigSyntax`], [`Error::Config`], and [`Error::Unsupported`] or
    /// [`Error::UnsupportedOption`] naming the key.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let raw: Self = serde_json::from_str(&read_config(path)?)
            .map_err(|source| Error::ConfigSyntax { path: path.to_owned(), source })?;
        raw.check_options(path)?;
        raw.check_other_keys(path)?;
        if raw.r == 0 {
            let (actual, expected) = ("0".to_owned(), "at least 1".to_owned());
            return Err(Error::Config { path: path.to_owned(), field: "r", actual, expected });
        }
        Ok(raw)
    }

    /// Checks the values of the keys that are read.
    fn check_options(&self, path: &Path) -> Result<()> {
        let refuse = |field, actual: String, instead| {
            Err(Error::Unsupported { path: path.to_owned(), field, actual: quoted(&actual), instead })
        };
        let patterns = [
            ("alpha_pattern", first_regex(self.alpha_pattern.as_ref())),
            ("rank_pattern", first_regex(self.rank_pattern.as_ref())),
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
        if let Some(init) = self.init_lora_weights.as_ref().filter(|init| !keeps_base_weights(init)) {
            let instead = "it changes the base model; convert the adapter with peft's `save_pretrained(.., \
                           path_initial_model_for_weight_conversion=..)`, or merge it with peft";
            return refuse("init_lora_weights", init.to_string(), instead);
        }
        Ok(())
    }

    /// Refuses keys that are set and may change the result.
    fn check_other_keys(&self, path: &Path) -> Result<()> {
        match self.other.iter().find(|(key, value)| is_unknown_option(key, value)) {
            Some((key, value)) => Err(Error::UnsupportedOption {
                path: path.to_owned(),
                field: quoted(key),
                actual: quoted(&value.to_string()),
                instead: "it may change what the adapter computes; train the adapter without it, or merge it \
                          with peft",
            }),
            None => Ok(()),
        }
    }

    /// Whether `layer` is to be adapted, as far as names tell; a regular expression in `target_modules` matches nothing here.
    pub(super) fn is_target(&self, layer: ModuleId) -> bool {
        let name = layer.to_string();
        let matches = |value: Option<&Value>| match value {
            Some(Value::Array(keys)) => {
                keys.iter().filter_map(Value::as_str).any(|key| is_name_suffix(&name, key))
            }
            Some(Value::String(all)) => all == "all-linear",
            _ => false,
        };
        let is_layer =
            |value: &Value| value.as_u64().is_some_and(|number| Some(number as usize) == layer.layer);
        let in_layers = match &self.layers_to_transform {
            None | Some(Value::Null) => true,
            Some(Value::Array(layers)) => layers.iter().any(is_layer),
            Some(layer) => is_layer(layer),
        };
        let excluded = match &self.exclude_modules {
            Some(Value::String(_)) => true,
            excluded => matches(excluded.as_ref()),
        };
        in_layers && matches(self.target_modules.as_ref()) && !excluded
    }

    /// Configuration in our form.
    pub(super) fn lora_config(&self) -> LoraConfig {
        let target_modules = match &self.target_modules {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(name)) => vec![name.clone()],
            _ => Vec::new(),
        };
        LoraConfig { r: self.r, lora_alpha: self.lora_alpha, target_modules, use_rslora: self.use_rslora }
    }

    /// Alpha of a layer: its entry in `alpha_pattern`, else `lora_alpha`.
    pub(super) fn alpha(&self, layer: &str) -> f64 {
        pattern_value(self.alpha_pattern.as_ref(), layer).unwrap_or(self.lora_alpha)
    }

    /// Rank of a layer: its entry in `rank_pattern`, else `r`.
    pub(super) fn rank(&self, layer: &str) -> usize {
        pattern_value(self.rank_pattern.as_ref(), layer).unwrap_or(self.r)
    }
}

/// Whether `key` is `name`, or its end after a dot.
fn is_name_suffix(name: &str, key: &str) -> bool {
    name.strip_suffix(key).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Value of the first entry whose key is a suffix of the layer's name.
fn pattern_value<T: Copy>(pattern: Option<&BTreeMap<String, T>>, layer: &str) -> Option<T> {
    pattern?.iter().find(|(key, _)| is_name_suffix(layer, key)).map(|(_, &value)| value)
}

/// First key of a pattern that is a regular expression, not a name.
fn first_regex<T>(pattern: Option<&BTreeMap<String, T>>) -> Option<&String> {
    let is_name = |key: &str| key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte));
    pattern?.keys().find(|key| !is_name(key))
}

/// Whether this value of `init_lora_weights` keeps the weights of the base model.
fn keeps_base_weights(init: &Value) -> bool {
    match init {
        Value::Null | Value::Bool(_) => true,
        Value::String(name) => SUPPORTED_INITS.contains(&name.as_str()),
        _ => false,
    }
}

/// Whether a key is set and not known to be without effect.
fn is_unknown_option(key: &str, value: &Value) -> bool {
    let is_set = match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        _ => true,
    };
    is_set && !IGNORED_KEYS.contains(&key)
}
