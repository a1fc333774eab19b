//! Reading a configuration: raw keys, their defaults, and every check.
//!
//! Defaults are those of the program that wrote the file: llm-foundry's where `architectures` or `auto_map` name its
//! remote code (`MPTForCausalLM`), else those of transformers (`MptForCausalLM`), which run files follow too.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{
    Activation, AttnConfig, Dropout, EmbeddingInit, FfnType, InitConfig, InitScheme, MptConfig, NormType,
    RopeConfig, RopeScaling,
};
use crate::error::{Error, Result};
use crate::weights::quoted;

impl MptConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::ConfigSyntax`], and [`Error::Config`] or [`Error::Unsupported`] naming the key.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = crate::weights::read_config(path)?;
        Self::from_json(&text, path)
    }

    /// Reads the text of a `config.json`; `origin` names it in errors. Keys that no MPT program reads are passed over,
    /// as other programs keep their own keys there.
    ///
    /// # Errors
    /// As [`MptConfig::from_file`].
    pub fn from_json(text: &str, origin: &Path) -> Result<Self> {
        let raw: RawMptConfig = serde_json::from_str(text)
            .map_err(|source| Error::ConfigSyntax { path: origin.to_owned(), source })?;
        raw.check(origin)
    }
}

impl MptConfig {
    /// Whether `key` is a key of a `config.json` that this crate reads.
    pub(crate) fn knows_key(key: &str) -> bool {
        serde_json::from_value::<RawMptConfig>(serde_json::json!({ key: null }))
            .is_ok_and(|raw| raw.other.is_empty())
    }
}

/// Keys of `config.json` as written, before any check.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RawMptConfig {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    auto_map: Option<Value>,
    d_model: Option<usize>,
    n_heads: Option<usize>,
    n_layers: Option<usize>,
    expansion_ratio: Option<f64>,
    max_seq_len: Option<usize>,
    vocab_size: Option<usize>,
    head_dim: Option<usize>,
    no_bias: Option<bool>,
    attention_bias: Option<bool>,
    norm_type: Option<String>,
    norm_eps: Option<f64>,
    layer_norm_epsilon: Option<f64>,
    tie_word_embeddings: Option<bool>,
    learned_pos_emb: Option<bool>,
    logit_scale: Option<Value>,
    final_logit_softcapping: Option<f64>,
    embedding_fraction: Option<f64>,
    emb_pdrop: Option<f64>,
    resid_pdrop: Option<f64>,
    block_overrides: Option<Value>,
    attn_config: Option<RawAttnConfig>,
    ffn_config: Option<RawFfnConfig>,
    init_config: Option<RawInitConfig>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RawAttnConfig {
    attn_type: Option<String>,
    attn_impl: Option<String>,
    attn_pdrop: Option<f64>,
    kv_n_heads: Option<usize>,
    kv_dim: Option<usize>,
    fused_qkv: Option<bool>,
    alibi: Option<bool>,
    alibi_bias_max: Option<f64>,
    clip_qkv: Option<f64>,
    qk_ln: Option<bool>,
    qk_gn: Option<bool>,
    softmax_scale: Option<f64>,
    attn_logit_softcapping: Option<f64>,
    attn_uses_sequence_id: Option<bool>,
    sliding_window_size: Option<i64>,
    prefix_lm: Option<bool>,
    rope: Option<bool>,
    rope_theta: Option<f64>,
    rope_impl: Option<String>,
    rope_dail_config: Option<RawRope>,
    rope_hf_config: Option<RawRope>,
    nope: Option<bool>,
    attn_temperature_tuning: Option<RawTemperature>,
    seq_parallel_world_size: Option<u64>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RawRope {
    r#type: Option<String>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RawTemperature {
    attn_scale: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RawFfnConfig {
    ffn_type: Option<String>,
    ffn_hidden_size: Option<usize>,
    ffn_act_fn: Option<RawActivation>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RawActivation {
    name: Option<String>,
    approximate: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RawInitConfig {
    name: Option<String>,
    emb_init_std: Option<f64>,
    emb_init_uniform_lim: Option<Value>,
    init_div_is_residual: Option<Value>,
    init_std: Option<f64>,
    init_gain: Option<f64>,
    fan_mode: Option<String>,
    init_nonlinearity: Option<String>,
}

/// Keys that do not change what the model computes: about other programs, or read by none.
const BYSTANDERS: &[&str] = &[
    "_name_or_path",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "fc_type",
    "init_device",
    "initializer_range",
    "name",
    "pad_token_id",
    "tokenizer_name",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "use_pad_tok_in_ffn",
    "verbose",
];

impl TryFrom<RawMptConfig> for MptConfig {
    type Error = Error;

    /// The `[model]` table of a run file, where a key that nobody knows is a slip of the pen.
    fn try_from(raw: RawMptConfig) -> Result<Self> {
        let at = Checker { path: Path::new("[model]") };
        at.known(&raw.other, BYSTANDERS)?;
        if let Some(attn) = &raw.attn_config {
            at.known(&attn.other, &["model_type"])?;
        }
        raw.check(at.path)
    }
}

impl RawMptConfig {
    /// The keys of [`MptConfig::mpt`], all others absent.
    pub(super) fn sizes(
        d_model: usize,
        n_layers: usize,
        n_heads: usize,
        vocab_size: usize,
        max_seq_len: usize,
    ) -> Self {
        Self {
            d_model: Some(d_model),
            n_layers: Some(n_layers),
            n_heads: Some(n_heads),
            vocab_size: Some(vocab_size),
            max_seq_len: Some(max_seq_len),
            ..Self::default()
        }
    }

    pub(super) fn check(self, path: &Path) -> Result<MptConfig> {
        let at = Checker { path };
        if let Some(kind) = self.model_type.as_deref().filter(|kind| *kind != "mpt") {
            return Err(at.wrong("model_type", kind, "\"mpt\""));
        }
        at.absent("block_overrides", self.block_overrides.as_ref().filter(|value| !value.is_null()))?;
        let by_foundry = self.is_by_foundry();
        let d_model = at.size("d_model", self.d_model.unwrap_or(2048))?;
        let n_heads = at.size("n_heads", self.n_heads.unwrap_or(16))?;
        if !d_model.is_multiple_of(n_heads) {
            return Err(at.wrong("n_heads", n_heads, format!("a divisor of d_model = {d_model}")));
        }
        let head_dim = at.size("head_dim", self.head_dim.unwrap_or(d_model / n_heads))?;
        if n_heads * head_dim > Checker::LARGEST_SIZE {
            return Err(at.wrong("head_dim", head_dim, format!("at most 2^30 / {n_heads} heads")));
        }
        let n_layers = at.size("n_layers", self.n_layers.unwrap_or(24))?;
        if n_layers > Checker::MOST_LAYERS {
            return Err(at.wrong("n_layers", n_layers, "a number from 1 to 2^16"));
        }
        let max_seq_len = at.size("max_seq_len", self.max_seq_len.unwrap_or(2048))?;
        let no_bias = self.no_bias.unwrap_or(!by_foundry);
        let raw_attn = self.attn_config.clone().unwrap_or_default();
        let attn_config = raw_attn.check(&at, d_model, n_heads, head_dim, by_foundry)?;
        // llm-foundry turns learned positions off under ALiBi and RoPE, whatever the key says
        let learned =
            self.learned_pos_emb.unwrap_or(true) && !attn_config.alibi && attn_config.rope.is_none();
        Ok(MptConfig {
            d_model,
            n_heads,
            n_layers,
            head_dim,
            ffn_hidden_size: self.ffn_hidden_size(&at, d_model)?,
            ffn_type: self.ffn_type(&at)?,
            activation: self.activation(&at)?,
            max_seq_len,
            vocab_size: at.size("vocab_size", self.vocab_size.unwrap_or(50368))?,
            no_bias,
            attention_bias: self.attention_bias.unwrap_or(!no_bias),
            norm_type: self.norm_type(&at)?,
            norm_eps: at.positive("norm_eps", self.norm_eps.or(self.layer_norm_epsilon).unwrap_or(1e-5))?,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(true),
            learned_pos_emb: learned,
            logit_scale: self.logit_scale(&at, d_model)?,
            final_logit_softcapping: at
                .optional_positive("final_logit_softcapping", self.final_logit_softcapping)?,
            embedding_fraction: at.fraction("embedding_fraction", self.embedding_fraction.unwrap_or(1.0))?,
            dropout: Dropout {
                embedding: at.rate("emb_pdrop", self.emb_pdrop)?,
                residual: at.rate("resid_pdrop", self.resid_pdrop)?,
                attention: at.rate("attn_pdrop", raw_attn.attn_pdrop)?,
            },
            attn_config,
            init_config: self.init_config.unwrap_or_default().check(&at)?,
        })
    }

    fn is_by_foundry(&self) -> bool {
        let names = self.architectures.iter().flatten().any(|name| name == "MPTForCausalLM");
        names || self.auto_map.as_ref().is_some_and(|map| !map.is_null())
    }

    fn ffn_hidden_size(&self, at: &Checker<'_>, d_model: usize) -> Result<usize> {
        if let Some(size) = self.ffn_config.as_ref().and_then(|ffn| ffn.ffn_hidden_size) {
            return at.size("ffn_hidden_size", size);
        }
        let ratio = self.expansion_ratio.unwrap_or(4.0);
        let hidden = ratio * d_model as f64;
        if !(1.0..=1e9).contains(&hidden) || hidden.fract() != 0.0 {
            return Err(at.wrong(
                "expansion_ratio",
                ratio,
                format!("a ratio with a whole product with d_model = {d_model}"),
            ));
        }
        Ok(hidden as usize)
    }

    fn ffn_type(&self, at: &Checker<'_>) -> Result<FfnType> {
        let ffn_type = self.ffn_config.as_ref().and_then(|ffn| ffn.ffn_type.as_deref());
        match ffn_type.unwrap_or("mptmlp") {
            "mptmlp" => Ok(FfnType::Mlp),
            "mptglu" => Ok(FfnType::Glu),
            "mptgeglu" => Err(at.unsupported("ffn_type", "mptgeglu", "write `mptglu`, its present name")),
            other => Err(at.unsupported(
                "ffn_type",
                other,
                "`mptmlp` and `mptglu` are built; mixtures of experts and fused TransformerEngine layers are not",
            )),
        }
    }

    fn activation(&self, at: &Checker<'_>) -> Result<Activation> {
        let Some(activation) = self.ffn_config.as_ref().and_then(|ffn| ffn.ffn_act_fn.as_ref()) else {
            return Ok(Activation::Gelu);
        };
        let name = activation.name.as_deref().unwrap_or("gelu");
        match (name, activation.approximate.as_deref().unwrap_or("none")) {
            ("gelu", "none") => Ok(Activation::Gelu),
            ("gelu", "tanh") => Ok(Activation::GeluTanh),
            ("quick_gelu", _) => Ok(Activation::QuickGelu),
            ("relu", _) => Ok(Activation::Relu),
            ("silu", _) => Ok(Activation::Silu),
            _ => Err(at.unsupported("ffn_act_fn", name, "`gelu`, `quick_gelu`, `relu` and `silu` are built")),
        }
    }

    fn norm_type(&self, at: &Checker<'_>) -> Result<NormType> {
        let norm_type = self.norm_type.as_deref().unwrap_or("low_precision_layernorm").to_lowercase();
        match norm_type.as_str() {
            "layernorm" | "low_precision_layernorm" => Ok(NormType::LayerNorm),
            "rmsnorm" | "low_precision_rmsnorm" | "triton_rmsnorm" => Ok(NormType::RmsNorm),
            other => Err(at.unsupported(
                "norm_type",
                other,
                "`layernorm`, `rmsnorm` and their low_precision_ forms are built",
            )),
        }
    }

    fn logit_scale(&self, at: &Checker<'_>, d_model: usize) -> Result<Option<f64>> {
        match &self.logit_scale {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) if name == "inv_sqrt_d_model" => {
                Ok(Some(1.0 / (d_model as f64).sqrt()))
            }
            Some(Value::Number(scale)) if scale.as_f64().is_some_and(f64::is_finite) => Ok(scale.as_f64()),
            Some(other) => {
                Err(at.wrong("logit_scale", other, "null, a finite number or \"inv_sqrt_d_model\""))
            }
        }
    }
}

impl RawAttnConfig {
    fn check(
        &self,
        at: &Checker<'_>,
        d_model: usize,
        n_heads: usize,
        head_dim: usize,
        by_foundry: bool,
    ) -> Result<AttnConfig> {
        self.refuse_unsupported(at, d_model)?;
        let qk = (self.qk_ln.unwrap_or(false), self.qk_gn.unwrap_or(false));
        if qk == (true, true) {
            return Err(at.wrong("qk_gn", true, "false where `qk_ln` is true: a model has one of them"));
        }
        // as in llm-foundry, a `head_dim` of its own does not change the default
        let default_scale = 1.0 / (d_model as f64 / n_heads as f64).sqrt();
        Ok(AttnConfig {
            kv_n_heads: self.kv_n_heads(at, n_heads)?,
            fused_qkv: self.fused_qkv.unwrap_or(true),
            alibi: self.alibi.unwrap_or(!by_foundry),
            alibi_bias_max: at.positive("alibi_bias_max", self.alibi_bias_max.unwrap_or(8.0))?,
            rope: self
                .rope
                .unwrap_or(false)
                .then(|| self.rope(at, head_dim, d_model / n_heads))
                .transpose()?,
            clip_qkv: self.clip_qkv(at)?,
            qk_ln: qk.0,
            qk_gn: qk.1,
            softmax_scale: at.finite("softmax_scale", self.softmax_scale.unwrap_or(default_scale))?,
            logit_softcapping: at.optional_positive("attn_logit_softcapping", self.attn_logit_softcapping)?,
            attn_uses_sequence_id: self.attn_uses_sequence_id.unwrap_or(false),
            sliding_window_size: self.sliding_window_size.and_then(|size| usize::try_from(size).ok()),
        })
    }

    /// A bound of 0 means none, as in llm-foundry.
    fn clip_qkv(&self, at: &Checker<'_>) -> Result<Option<f64>> {
        at.optional_positive("clip_qkv", self.clip_qkv.filter(|&clip| clip != 0.0))
    }

    fn rope(&self, at: &Checker<'_>, head_dim: usize, default_head_dim: usize) -> Result<RopeConfig> {
        if !head_dim.is_multiple_of(2) {
            return Err(at.wrong("head_dim", head_dim, "an even number where `rope` is true"));
        }
        let theta = at.positive("rope_theta", self.rope_theta.unwrap_or(10_000.0))?;
        let scaling = match self.rope_impl.as_deref().unwrap_or("dail") {
            // llm-foundry would turn the first numbers of each head only
            "dail" if head_dim != default_head_dim => {
                let instead = "write \"hf\" where `head_dim` is not d_model / n_heads";
                return Err(at.unsupported("rope_impl", "dail", instead));
            }
            "dail" => self.rope_dail_config.clone().unwrap_or_default().check_dail(at)?,
            "hf" => self.rope_hf_config.clone().unwrap_or_default().check_hf(at)?,
            other => return Err(at.wrong("rope_impl", other, "\"dail\" or \"hf\"")),
        };
        Ok(RopeConfig { theta, scaling })
    }

    fn refuse_unsupported(&self, at: &Checker<'_>, d_model: usize) -> Result<()> {
        let on = |flag: Option<bool>| flag.filter(|&on| on);
        if on(self.prefix_lm).is_some() {
            return Err(at.unsupported("prefix_lm", true, "set it to false: attention is causal"));
        }
        if on(self.nope).is_some() {
            return Err(at.unsupported(
                "nope",
                true,
                "set it to false, and `alibi` and `rope` too if it meant so",
            ));
        }
        at.absent("kv_dim", self.kv_dim.filter(|&dim| dim != d_model))?;
        at.absent("seq_parallel_world_size", self.seq_parallel_world_size.filter(|&size| size > 1))?;
        let scale = self.attn_temperature_tuning.as_ref().and_then(|tuning| tuning.attn_scale);
        at.absent("attn_temperature_tuning", scale.filter(|&scale| scale != 0.0))?;
        match self.attn_impl.as_deref().unwrap_or("torch") {
            // one function under several names: the same numbers up to rounding
            "torch" | "flash" | "triton" | "eager" | "sdpa" => Ok(()),
            other => Err(at.unsupported("attn_impl", other, "write `torch` or `flash`")),
        }
    }

    fn kv_n_heads(&self, at: &Checker<'_>, n_heads: usize) -> Result<usize> {
        let kv_n_heads = match self.attn_type.as_deref().unwrap_or("multihead_attention") {
            "multihead_attention" => n_heads,
            "multiquery_attention" => 1,
            "grouped_query_attention" => at.size("kv_n_heads", self.kv_n_heads.unwrap_or(0))?,
            other => {
                return Err(at.unsupported(
                    "attn_type",
                    other,
                    "multihead_, multiquery_ and grouped_query_attention are built",
                ));
            }
        };
        if !n_heads.is_multiple_of(kv_n_heads) {
            return Err(at.wrong("kv_n_heads", kv_n_heads, format!("a divisor of n_heads = {n_heads}")));
        }
        Ok(kv_n_heads)
    }
}

impl RawRope {
    fn check_dail(&self, at: &Checker<'_>) -> Result<RopeScaling> {
        match self.r#type.as_deref().unwrap_or("original") {
            "original" => Ok(RopeScaling::None),
            other => Err(at.unsupported("rope_dail_config.type", other, "only `original` is built")),
        }
    }

    fn check_hf(&self, at: &Checker<'_>) -> Result<RopeScaling> {
        let positive = |field, value: Option<f64>, default| at.positive(field, value.unwrap_or(default));
        let factor = positive("rope_hf_config.factor", self.factor, 1.0)?;
        match self.r#type.as_deref().unwrap_or("no_scaling") {
            "no_scaling" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor }),
            "dynamic" => Ok(RopeScaling::Dynamic { factor }),
            "llama3" => {
                let low = positive("rope_hf_config.low_freq_factor", self.low_freq_factor, 1.0)?;
                let high = positive("rope_hf_config.high_freq_factor", self.high_freq_factor, 4.0)?;
                if high <= low {
                    return Err(at.wrong("rope_hf_config.high_freq_factor", high, format!("above {low}")));
                }
                Ok(RopeScaling::Llama3 {
                    factor,
                    low_freq_factor: low,
                    high_freq_factor: high,
                    original_max_position_embeddings: positive(
                        "rope_hf_config.original_max_position_embeddings",
                        self.original_max_position_embeddings,
                        8192.0,
                    )?,
                })
            }
            other => Err(at.wrong(
                "rope_hf_config.type",
                other,
                "\"no_scaling\", \"linear\", \"dynamic\" or \"llama3\"",
            )),
        }
    }
}

impl RawInitConfig {
    fn check(self, at: &Checker<'_>) -> Result<InitConfig> {
        let residual_divisor = match &self.init_div_is_residual {
            None | Some(Value::Null | Value::Bool(true)) => None,
            Some(Value::Bool(false)) => Some(1.0),
            Some(value) => {
                let number = value.as_f64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
                Some(at.positive("init_div_is_residual", number.unwrap_or(f64::NAN))?)
            }
        };
        Ok(InitConfig { scheme: self.scheme(at)?, embedding: self.embedding(at)?, residual_divisor })
    }

    fn scheme(&self, at: &Checker<'_>) -> Result<InitScheme> {
        let gain = at.finite("init_gain", self.init_gain.unwrap_or(0.0))?;
        let kaiming = |uniform| {
            let fan_out = match self.fan_mode.as_deref().unwrap_or("fan_in") {
                "fan_in" => false,
                "fan_out" => true,
                other => return Err(at.wrong("fan_mode", other, "\"fan_in\" or \"fan_out\"")),
            };
            let nonlinearity = self.init_nonlinearity.as_deref().unwrap_or("relu");
            Ok(InitScheme::Kaiming { uniform, fan_out, gain: nonlinearity_gain(at, nonlinearity, gain)? })
        };
        match self.name.as_deref().unwrap_or("kaiming_normal_") {
            "default_" => Ok(InitScheme::Torch),
            "baseline_" => {
                Ok(InitScheme::Baseline { std: at.optional_positive("init_std", self.init_std)? })
            }
            "kaiming_normal_" => kaiming(false),
            "kaiming_uniform_" => kaiming(true),
            "small_init_" => Ok(InitScheme::Small),
            "neox_init_" => Ok(InitScheme::Neox),
            "xavier_normal_" => Ok(InitScheme::Xavier { uniform: false, gain }),
            "xavier_uniform_" => Ok(InitScheme::Xavier { uniform: true, gain }),
            other => Err(at.unsupported(
                "init_config.name",
                other,
                "default_, baseline_, kaiming_normal_, kaiming_uniform_, neox_init_, small_init_, xavier_normal_ and \
                 xavier_uniform_ are built",
            )),
        }
    }

    fn embedding(&self, at: &Checker<'_>) -> Result<Option<EmbeddingInit>> {
        if let Some(std) = self.emb_init_std {
            let std = if std == 0.0 { 0.0 } else { at.positive("emb_init_std", std)? };
            return Ok(Some(EmbeddingInit::Normal(std)));
        }
        let limits: Vec<f64> = match &self.emb_init_uniform_lim {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(limits)) => limits.iter().filter_map(Value::as_f64).collect(),
            Some(limit) => limit.as_f64().map(|limit| vec![-limit, limit]).unwrap_or_default(),
        };
        match limits[..] {
            [low, high] if low <= high && (high - low).is_finite() => {
                Ok(Some(EmbeddingInit::Uniform(low, high)))
            }
            _ => Err(at.wrong(
                "emb_init_uniform_lim",
                self.emb_init_uniform_lim.as_ref().map(Value::to_string).unwrap_or_default(),
                "a number, or a lower and an upper limit",
            )),
        }
    }
}

/// torch's `calculate_gain`; `slope` is llm-foundry's `init_gain`, which it hands on as the slope of leaky_relu.
fn nonlinearity_gain(at: &Checker<'_>, nonlinearity: &str, slope: f64) -> Result<f64> {
    match nonlinearity {
        "linear" | "sigmoid" => Ok(1.0),
        "tanh" => Ok(5.0 / 3.0),
        "relu" => Ok(std::f64::consts::SQRT_2),
        "leaky_relu" => Ok((2.0 / (1.0 + slope * slope)).sqrt()),
        "selu" => Ok(0.75),
        other => Err(at.wrong("init_nonlinearity", other, "linear, sigmoid, tanh, relu, leaky_relu or selu")),
    }
}

/// Builds errors about one configuration file.
struct Checker<'a> {
    path: &'a Path,
}

impl Checker<'_> {
    /// Sizes beyond this are damage, not models: elements of a matrix fit in 64 bits.
    const LARGEST_SIZE: usize = 1 << 30;

    /// Layers beyond this are damage, not models: MPT-30B has 48.
    const MOST_LAYERS: usize = 1 << 16;

    fn wrong(&self, field: &'static str, actual: impl ToString, expected: impl Into<String>) -> Error {
        Error::Config {
            path: self.path.to_owned(),
            field,
            expected: expected.into(),
            actual: quoted(&actual.to_string()),
        }
    }

    fn unsupported(&self, field: &'static str, actual: impl ToString, instead: &'static str) -> Error {
        let actual = quoted(&actual.to_string());
        Error::Unsupported { path: self.path.to_owned(), field, actual, instead }
    }

    fn absent(&self, field: &'static str, value: Option<impl ToString>) -> Result<()> {
        match value {
            Some(value) => {
                Err(self.unsupported(field, value, "remove the key if the weights do not need it"))
            }
            None => Ok(()),
        }
    }

    fn size(&self, field: &'static str, size: usize) -> Result<usize> {
        match size {
            1..=Self::LARGEST_SIZE => Ok(size),
            _ => Err(self.wrong(field, size, "a number from 1 to 2^30")),
        }
    }

    fn positive(&self, field: &'static str, value: f64) -> Result<f64> {
        if value > 0.0 {
            self.finite(field, value)
        } else {
            Err(self.wrong(field, value, "a number above 0"))
        }
    }

    fn optional_positive(&self, field: &'static str, value: Option<f64>) -> Result<Option<f64>> {
        value.map(|value| self.positive(field, value)).transpose()
    }

    fn fraction(&self, field: &'static str, value: f64) -> Result<f64> {
        if value > 0.0 && value <= 1.0 {
            Ok(value)
        } else {
            Err(self.wrong(field, value, "a number above 0 and up to 1"))
        }
    }

    fn rate(&self, field: &'static str, value: Option<f64>) -> Result<f64> {
        match value.unwrap_or(0.0) {
            rate if (0.0..1.0).contains(&rate) => Ok(rate),
            rate => Err(self.wrong(field, rate, "a rate of at least 0 and below 1")),
        }
    }

    fn finite(&self, field: &'static str, value: f64) -> Result<f64> {
        if value.is_finite() { Ok(value) } else { Err(self.wrong(field, value, "a finite number")) }
    }

    fn known(&self, other: &BTreeMap<String, Value>, bystanders: &[&str]) -> Result<()> {
        match other.keys().find(|key| !bystanders.contains(&key.as_str())) {
            Some(key) => {
                Err(self.wrong("key", key, "a key of an MPT config.json, such as `d_model` or `attn_config`"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<MptConfig> {
        MptConfig::from_json(json, Path::new("config.json"))
    }

    #[test]
    fn impossible_and_unsupported_keys_are_named() {
        for (json, named) in [
            (r#"{"n_heads": 10, "d_model": 768}"#, "`n_heads` is 10"),
            (r#"{"d_model": 0}"#, "`d_model` is 0"),
            (r#"{"d_model": 99999999999999}"#, "`d_model`"),
            (
                r#"{"attn_config": {"rope": true, "rope_dail_config": {"type": "xpos"}}}"#,
                "`rope_dail_config.type` = xpos",
            ),
            (
                r#"{"attn_config": {"rope": true, "rope_impl": "hf", "rope_hf_config": {"type": "yarn"}}}"#,
                "yarn",
            ),
            (r#"{"d_model": 6, "n_heads": 2, "attn_config": {"rope": true}}"#, "`head_dim` is 3"),
            (r#"{"head_dim": 64, "attn_config": {"rope": true}}"#, "`rope_impl` = dail"),
            (r#"{"attn_config": {"nope": true}}"#, "`nope`"),
            (r#"{"attn_config": {"prefix_lm": true}}"#, "`prefix_lm`"),
            (r#"{"attn_config": {"clip_qkv": -1}}"#, "`clip_qkv` is -1"),
            (r#"{"attn_config": {"kv_dim": 7}}"#, "`kv_dim` = 7"),
            (
                r#"{"attn_config": {"attn_type": "grouped_query_attention", "kv_n_heads": 3}}"#,
                "`kv_n_heads` is 3",
            ),
            (
                r#"{"attn_config": {"attn_temperature_tuning": {"attn_scale": 0.1}}}"#,
                "`attn_temperature_tuning`",
            ),
            (r#"{"block_overrides": {"order": []}}"#, "`block_overrides`"),
            (r#"{"emb_pdrop": 1.5}"#, "`emb_pdrop` is 1.5"),
            (r#"{"embedding_fraction": 0}"#, "`embedding_fraction` is 0"),
            (r#"{"ffn_config": {"ffn_type": "mptgeglu"}}"#, "write `mptglu`"),
            (r#"{"ffn_config": {"ffn_type": "torch_dmoe"}}"#, "torch_dmoe"),
            (r#"{"ffn_config": {"ffn_act_fn": {"name": "mish"}}}"#, "`ffn_act_fn` = mish"),
            (r#"{"logit_scale": "big"}"#, "`logit_scale`"),
            (r#"{"norm_type": "batchnorm"}"#, "batchnorm"),
            (r#"{"init_config": {"name": "mine_"}}"#, "mine_"),
            (r#"{"init_config": {"emb_init_uniform_lim": [1, 2, 3]}}"#, "`emb_init_uniform_lim`"),
            (r#"{"model_type": "llama"}"#, "`model_type` is llama"),
        ] {
            let message = read(json).unwrap_err().to_string();
            assert!(message.starts_with("config.json: ") && message.contains(named), "{json}: {message}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_program_that_wrote_the_file() {
        let foundry = read(r#"{"architectures": ["MPTForCausalLM"]}"#).unwrap();
        assert!(!foundry.no_bias && !foundry.attn_config.alibi && foundry.learned_pos_emb);
        assert!(foundry.attention_bias);
        let transformers = read(r#"{"architectures": ["MptForCausalLM"]}"#).unwrap();
        assert!(transformers.no_bias && transformers.attn_config.alibi && !transformers.learned_pos_emb);
    }

    #[test]
    fn old_names_of_attention_are_one_function() {
        for name in ["torch", "flash", "triton"] {
            assert!(read(&format!(r#"{{"attn_config": {{"attn_impl": "{name}"}}}}"#)).is_ok(), "{name}");
        }
    }

    #[test]
    fn biases_of_the_attention_have_a_key_of_their_own() {
        let config = read(r#"{"no_bias": true, "attention_bias": true, "n_layers": 1}"#).unwrap();
        let shapes = config.parameter_shapes();
        assert!(shapes.contains_key("transformer.blocks.0.attn.Wqkv.bias"));
        assert!(!shapes.contains_key("transformer.blocks.0.attn.out_proj.bias"));
    }

    #[test]
    fn a_run_file_refuses_keys_nobody_knows_and_config_json_passes_over_them() {
        let json = r#"{"d_modle": 64}"#;
        assert!(read(json).is_ok());
        let message = serde_json::from_str::<MptConfig>(json).unwrap_err().to_string();
        assert!(message.contains("d_modle"), "{message}");
    }
}
