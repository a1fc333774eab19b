//! The configuration of an MPT model: `config.json` as published, checked once at this boundary.
//!
//! Both spellings are read: that of llm-foundry's remote code (`norm_eps`, `MPTForCausalLM`) and that of transformers
//! (`layer_norm_epsilon`, `MptForCausalLM`). Absent keys have the defaults of transformers. Keys that change what the
//! model computes are honored or refused by name; keys that do not are kept out of [`MptConfig`].

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// What an MPT model is. Sizes are counts of elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawMptConfig", into = "Value")]
pub struct MptConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Width of the feed-forward layer.
    pub ffn_hidden_size: usize,
    /// The feed-forward layer's form.
    pub ffn_type: FfnType,
    /// Positions the model was trained with. ALiBi models run past it.
    pub max_seq_len: usize,
    /// Rows of the embedding, padding included.
    pub vocab_size: usize,
    /// Whether the linears and norms have no bias.
    pub no_bias: bool,
    /// The norm of every block and of the output.
    pub norm_type: NormType,
    /// Added to the variance in a norm.
    pub norm_eps: f64,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether positions have a learned embedding `wpe`.
    pub learned_pos_emb: bool,
    /// Factor on the logits.
    pub logit_scale: Option<f64>,
    /// Attention.
    pub attn_config: AttnConfig,
    /// How parameters are drawn for training from scratch.
    pub init_config: InitConfig,
}

/// The attention part of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct AttnConfig {
    /// Key/value heads: `n_heads` (multi-head), 1 (multi-query) or a divisor (grouped).
    pub kv_n_heads: usize,
    /// Whether scores carry the ALiBi bias.
    pub alibi: bool,
    /// Largest exponent of the ALiBi slopes.
    pub alibi_bias_max: f64,
    /// Bound on the absolute value of queries, keys and values.
    pub clip_qkv: Option<f64>,
    /// Whether a norm over all of q and one over all of k follow the projection.
    pub qk_ln: bool,
    /// Whether a norm over each head of q and k follows the projection.
    pub qk_gn: bool,
    /// Factor on the scores.
    pub softmax_scale: f64,
    /// Whether a token sees only its own document of a packed sequence.
    pub attn_uses_sequence_id: bool,
    /// How many keys before its own a query sees; all where absent.
    pub sliding_window_size: Option<usize>,
}

/// Form of the feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FfnType {
    /// down(gelu(up(x)))
    Mlp,
    /// down(gelu(gate(x)) * up(x))
    Glu,
}

/// Kind of norm. The low-precision kinds of llm-foundry are the same function in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormType {
    /// Mean and deviation.
    LayerNorm,
    /// Root of the mean square.
    RmsNorm,
}

/// How parameters are drawn: `kaiming_normal_` of llm-foundry, standard deviation sqrt(2 / fan_in).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InitConfig {
    /// Standard deviation of the embeddings, instead of sqrt(2 / d_model).
    pub emb_init_std: Option<f64>,
    /// Divisor of `out_proj` and `down_proj`, instead of sqrt(2 * n_layers).
    pub residual_divisor: Option<f64>,
}

impl MptConfig {
    /// The configuration of a model like MPT-30B at another size: ALiBi, no biases, tied embedding, GELU x 4.
    ///
    /// # Errors
    /// [`Error::Config`] naming the size that is impossible.
    pub fn mpt(
        d_model: usize,
        n_layers: usize,
        n_heads: usize,
        vocab_size: usize,
        max_seq_len: usize,
    ) -> Result<Self> {
        let raw = RawMptConfig {
            d_model: Some(d_model),
            n_layers: Some(n_layers),
            n_heads: Some(n_heads),
            vocab_size: Some(vocab_size),
            max_seq_len: Some(max_seq_len),
            ..RawMptConfig::default()
        };
        raw.check(Path::new("model"), Unknown::Refuse)
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::ConfigSyntax`], and [`Error::Config`] or [`Error::Unsupported`] naming the key.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path, "reading"))?;
        Self::from_json(&text, path)
    }

    /// Reads the text of a `config.json`; `origin` names it in errors. Unknown keys are passed over, as other
    /// programs keep their own keys there.
    ///
    /// # Errors
    /// As [`MptConfig::from_file`].
    pub fn from_json(text: &str, origin: &Path) -> Result<Self> {
        let raw: RawMptConfig = serde_json::from_str(text)
            .map_err(|source| Error::ConfigSyntax { path: origin.to_owned(), source })?;
        raw.check(origin, Unknown::PassOver)
    }

    /// The `config.json` text that this crate, transformers and llm-foundry read back.
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(&Value::from(self.clone())).expect("a JSON value can be printed");
        text.push('\n');
        text
    }

    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// Width of the fused query, key and value projection.
    pub fn qkv_width(&self) -> usize {
        self.d_model + 2 * self.attn_config.kv_n_heads * self.head_dim()
    }

    /// Parameters of the model, the embedding counted once where it is tied.
    pub fn num_parameters(&self) -> u64 {
        self.parameter_shapes().values().map(|shape| shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }

    /// Every parameter's name in a checkpoint and its shape, a linear as `[out, in]`.
    pub fn parameter_shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = BTreeMap::new();
        let d = self.d_model;
        shapes.insert("transformer.wte.weight".to_owned(), vec![self.vocab_size, d]);
        if self.learned_pos_emb {
            shapes.insert("transformer.wpe.weight".to_owned(), vec![self.max_seq_len, d]);
        }
        if !self.tie_word_embeddings {
            shapes.insert("lm_head.weight".to_owned(), vec![self.vocab_size, d]);
        }
        self.insert_with_bias(&mut shapes, "transformer.norm_f".to_owned(), vec![d]);
        for layer in 0..self.n_layers {
            for (name, shape) in self.block_shapes() {
                self.insert_with_bias(&mut shapes, format!("transformer.blocks.{layer}.{name}"), shape);
            }
        }
        shapes
    }

    fn block_shapes(&self) -> Vec<(&'static str, Vec<usize>)> {
        let (d, hidden) = (self.d_model, self.ffn_hidden_size);
        let kv_width = self.attn_config.kv_n_heads * self.head_dim();
        let mut shapes = vec![
            ("norm_1", vec![d]),
            ("attn.Wqkv", vec![self.qkv_width(), d]),
            ("attn.out_proj", vec![d, d]),
            ("norm_2", vec![d]),
            ("ffn.up_proj", vec![hidden, d]),
            ("ffn.down_proj", vec![d, hidden]),
        ];
        if self.ffn_type == FfnType::Glu {
            shapes.push(("ffn.gate_proj", vec![hidden, d]));
        }
        if self.attn_config.qk_ln {
            shapes.extend([("attn.q_ln", vec![d]), ("attn.k_ln", vec![kv_width])]);
        }
        if self.attn_config.qk_gn {
            shapes.extend([("attn.q_ln", vec![self.head_dim()]), ("attn.k_ln", vec![self.head_dim()])]);
        }
        shapes
    }

    fn insert_with_bias(&self, shapes: &mut BTreeMap<String, Vec<usize>>, name: String, shape: Vec<usize>) {
        let bias = (!self.no_bias && self.norm_has_bias(&name)).then(|| vec![shape[0]]);
        shapes.insert(format!("{name}.weight"), shape);
        if let Some(bias) = bias {
            shapes.insert(format!("{name}.bias"), bias);
        }
    }

    /// Linears have a bias where `no_bias` is false; norms too, but root-mean-square norms never do.
    fn norm_has_bias(&self, name: &str) -> bool {
        let is_norm = name.contains("norm_") || name.ends_with("_ln");
        !is_norm || self.norm_type == NormType::LayerNorm
    }
}

impl From<MptConfig> for Value {
    fn from(config: MptConfig) -> Self {
        let attn = &config.attn_config;
        let attn_type = match attn.kv_n_heads {
            n if n == config.n_heads => "multihead_attention",
            1 => "multiquery_attention",
            _ => "grouped_query_attention",
        };
        let mut attn_json = json!({
            "alibi": attn.alibi,
            "alibi_bias_max": attn.alibi_bias_max,
            "attn_impl": "torch",
            "attn_pdrop": 0.0,
            "attn_type": attn_type,
            "attn_uses_sequence_id": attn.attn_uses_sequence_id,
            "clip_qkv": attn.clip_qkv,
            "prefix_lm": false,
            "qk_gn": attn.qk_gn,
            "qk_ln": attn.qk_ln,
            "softmax_scale": attn.softmax_scale,
        });
        // written only where used: transformers' reader knows neither key
        if attn_type == "grouped_query_attention" {
            attn_json["kv_n_heads"] = json!(attn.kv_n_heads);
        }
        if let Some(window) = attn.sliding_window_size {
            attn_json["sliding_window_size"] = json!(window);
        }
        let mut out = json!({
            "architectures": ["MptForCausalLM"],
            "model_type": "mpt",
            "d_model": config.d_model,
            "n_heads": config.n_heads,
            "n_layers": config.n_layers,
            "expansion_ratio": expansion_ratio(&config),
            "max_seq_len": config.max_seq_len,
            "vocab_size": config.vocab_size,
            "no_bias": config.no_bias,
            "norm_type": match config.norm_type {
                NormType::LayerNorm => "low_precision_layernorm",
                NormType::RmsNorm => "rmsnorm",
            },
            "norm_eps": config.norm_eps,
            "layer_norm_epsilon": config.norm_eps,
            "tie_word_embeddings": config.tie_word_embeddings,
            "learned_pos_emb": config.learned_pos_emb,
            "logit_scale": config.logit_scale,
            "embedding_fraction": 1.0,
            "emb_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "use_cache": true,
            "torch_dtype": "float32",
            "attn_config": attn_json,
        });
        if config.ffn_type == FfnType::Glu || !config.ffn_hidden_size.is_multiple_of(config.d_model) {
            let ffn_type = if config.ffn_type == FfnType::Glu { "mptglu" } else { "mptmlp" };
            out["ffn_config"] = json!({ "ffn_type": ffn_type, "ffn_hidden_size": config.ffn_hidden_size });
        }
        let init = &config.init_config;
        if *init != InitConfig::default() {
            out["init_config"] = json!({
                "name": "kaiming_normal_",
                "emb_init_std": init.emb_init_std,
                "init_div_is_residual": init.residual_divisor.map_or(json!(true), |divisor| json!(divisor)),
            });
        }
        out
    }
}

fn expansion_ratio(config: &MptConfig) -> Value {
    match config.ffn_hidden_size % config.d_model {
        0 => json!(config.ffn_hidden_size / config.d_model),
        _ => json!(config.ffn_hidden_size as f64 / config.d_model as f64),
    }
}

/// Keys of `config.json` as written, before any check.
#[derive(Clone, Debug, Default, Deserialize)]
struct RawMptConfig {
    model_type: Option<String>,
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
    #[serde(default)]
    attn_config: RawAttnConfig,
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
    nope: Option<bool>,
    attn_temperature_tuning: Option<RawTemperature>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
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
    init_div_is_residual: Option<Value>,
}

/// Keys that do not change what the model computes: about other programs, or read by none.
const BYSTANDERS: &[&str] = &[
    "_name_or_path",
    "architectures",
    "auto_map",
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

/// Keys of `attn_config` that matter only together with a key checked above.
const ATTN_BYSTANDERS: &[&str] =
    &["model_type", "rope_dail_config", "rope_hf_config", "rope_impl", "rope_theta"];

/// What to do with keys nobody knows.
#[derive(Clone, Copy, PartialEq)]
enum Unknown {
    Refuse,
    PassOver,
}

impl TryFrom<RawMptConfig> for MptConfig {
    type Error = Error;

    fn try_from(raw: RawMptConfig) -> Result<Self> {
        raw.check(Path::new("[model]"), Unknown::Refuse)
    }
}

impl RawMptConfig {
    fn check(self, path: &Path, unknown: Unknown) -> Result<MptConfig> {
        let at = Checker { path };
        if unknown == Unknown::Refuse {
            at.known(&self.other, BYSTANDERS)?;
            at.known(&self.attn_config.other, ATTN_BYSTANDERS)?;
        }
        if let Some(kind) = self.model_type.as_deref().filter(|kind| *kind != "mpt") {
            return Err(at.wrong("model_type", kind, "\"mpt\""));
        }
        self.refuse_unsupported(&at)?;
        let d_model = at.size("d_model", self.d_model.unwrap_or(2048))?;
        let n_heads = at.size("n_heads", self.n_heads.unwrap_or(16))?;
        if !d_model.is_multiple_of(n_heads) {
            return Err(at.wrong("n_heads", n_heads, format!("a divisor of d_model = {d_model}")));
        }
        if let Some(head_dim) = self.head_dim.filter(|&dim| dim != d_model / n_heads) {
            return Err(at.wrong("head_dim", head_dim, format!("d_model / n_heads = {}", d_model / n_heads)));
        }
        let attn_config = self.attn_config.check(&at, d_model, n_heads)?;
        let norm_eps = self.norm_eps.or(self.layer_norm_epsilon).unwrap_or(1e-5);
        Ok(MptConfig {
            d_model,
            n_heads,
            n_layers: at.size("n_layers", self.n_layers.unwrap_or(24))?,
            ffn_hidden_size: self.ffn_hidden_size(&at, d_model)?,
            ffn_type: self.ffn_type(&at)?,
            max_seq_len: at.size("max_seq_len", self.max_seq_len.unwrap_or(2048))?,
            vocab_size: at.size("vocab_size", self.vocab_size.unwrap_or(50368))?,
            no_bias: self.no_bias.unwrap_or(true),
            norm_type: self.norm_type(&at)?,
            norm_eps: at.positive("norm_eps", norm_eps)?,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(true),
            // llm-foundry turns learned positions off under ALiBi, whatever the key says
            learned_pos_emb: self.learned_pos_emb.unwrap_or(true) && !attn_config.alibi,
            logit_scale: self.logit_scale(&at, d_model)?,
            attn_config,
            init_config: self.init_config.unwrap_or_default().check(&at)?,
        })
    }

    fn refuse_unsupported(&self, at: &Checker<'_>) -> Result<()> {
        at.absent("final_logit_softcapping", self.final_logit_softcapping)?;
        at.absent("block_overrides", self.block_overrides.as_ref().filter(|value| !value.is_null()))?;
        let fraction = self.embedding_fraction.filter(|&fraction| fraction != 1.0);
        at.absent("embedding_fraction", fraction)?;
        let bias = self.attention_bias.filter(|&bias| bias == self.no_bias.unwrap_or(true));
        at.absent("attention_bias", bias)?;
        for (field, rate) in [
            ("emb_pdrop", self.emb_pdrop),
            ("resid_pdrop", self.resid_pdrop),
            ("attn_pdrop", self.attn_config.attn_pdrop),
        ] {
            if let Some(rate) = rate.filter(|&rate| rate != 0.0) {
                return Err(at.unsupported(field, rate, "set it to 0: it matters in training only"));
            }
        }
        Ok(())
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
        let Some(ffn) = &self.ffn_config else { return Ok(FfnType::Mlp) };
        if let Some(activation) = &ffn.ffn_act_fn {
            let name = activation.name.as_deref().unwrap_or("gelu");
            let exact = activation.approximate.as_deref().unwrap_or("none") == "none";
            if name != "gelu" || !exact {
                return Err(at.unsupported("ffn_act_fn", name, "only the exact `gelu` is built"));
            }
        }
        match ffn.ffn_type.as_deref().unwrap_or("mptmlp") {
            "mptmlp" => Ok(FfnType::Mlp),
            "mptglu" => Ok(FfnType::Glu),
            "mptgeglu" => Err(at.unsupported("ffn_type", "mptgeglu", "write `mptglu`, its present name")),
            other => Err(at.unsupported("ffn_type", other, "`mptmlp` and `mptglu` are built")),
        }
    }

    fn norm_type(&self, at: &Checker<'_>) -> Result<NormType> {
        match self.norm_type.as_deref().unwrap_or("low_precision_layernorm") {
            "layernorm" | "low_precision_layernorm" => Ok(NormType::LayerNorm),
            "rmsnorm" | "low_precision_rmsnorm" => Ok(NormType::RmsNorm),
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
            Some(Value::Number(scale)) if scale.as_f64().is_some_and(|s| s.is_finite() && s != 0.0) => {
                Ok(scale.as_f64())
            }
            Some(other) => {
                Err(at.wrong("logit_scale", other, "null, a finite number or \"inv_sqrt_d_model\""))
            }
        }
    }
}

impl RawAttnConfig {
    fn check(&self, at: &Checker<'_>, d_model: usize, n_heads: usize) -> Result<AttnConfig> {
        self.refuse_unsupported(at)?;
        let qk = (self.qk_ln.unwrap_or(false), self.qk_gn.unwrap_or(false));
        if qk == (true, true) {
            return Err(at.wrong("qk_gn", true, "false where `qk_ln` is true: a model has one of them"));
        }
        let default_scale = 1.0 / ((d_model / n_heads) as f64).sqrt();
        Ok(AttnConfig {
            kv_n_heads: self.kv_n_heads(at, n_heads)?,
            alibi: self.alibi.unwrap_or(true),
            alibi_bias_max: at.positive("alibi_bias_max", self.alibi_bias_max.unwrap_or(8.0))?,
            clip_qkv: self.clip_qkv.map(|clip| at.positive("clip_qkv", clip)).transpose()?,
            qk_ln: qk.0,
            qk_gn: qk.1,
            softmax_scale: at.finite("softmax_scale", self.softmax_scale.unwrap_or(default_scale))?,
            attn_uses_sequence_id: self.attn_uses_sequence_id.unwrap_or(false),
            sliding_window_size: self.sliding_window_size.and_then(|size| usize::try_from(size).ok()),
        })
    }

    fn refuse_unsupported(&self, at: &Checker<'_>) -> Result<()> {
        let on = |flag: Option<bool>| flag.filter(|&on| on);
        if on(self.prefix_lm).is_some() {
            return Err(at.unsupported("prefix_lm", true, "set it to false: attention is causal"));
        }
        at.absent("rope", on(self.rope))?;
        at.absent("nope", on(self.nope))?;
        at.absent("attn_logit_softcapping", self.attn_logit_softcapping)?;
        at.absent("kv_dim", self.kv_dim)?;
        at.absent("fused_qkv", self.fused_qkv.filter(|&fused| !fused))?;
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

impl RawInitConfig {
    fn check(self, at: &Checker<'_>) -> Result<InitConfig> {
        // other schemes are refused when parameters are drawn, not when a trained model is opened
        let residual_divisor = match self.init_div_is_residual {
            None | Some(Value::Null | Value::Bool(true)) => None,
            Some(Value::Bool(false)) => Some(1.0),
            Some(Value::Number(divisor)) => {
                Some(at.positive("init_div_is_residual", divisor.as_f64().unwrap_or(f64::NAN))?)
            }
            Some(other) => return Err(at.wrong("init_div_is_residual", other, "true, false or a number")),
        };
        if let Some(name) = self.name.as_deref().filter(|name| *name != "kaiming_normal_") {
            return Err(at.unsupported(
                "init_config.name",
                name,
                "`kaiming_normal_`, MPT's own scheme, is built",
            ));
        }
        let emb_init_std = self.emb_init_std.map(|std| at.positive("emb_init_std", std)).transpose()?;
        Ok(InitConfig { emb_init_std, residual_divisor })
    }
}

/// Builds errors about one configuration file.
struct Checker<'a> {
    path: &'a Path,
}

impl Checker<'_> {
    /// Sizes beyond this are damage, not models: products of three of them still fit in 128 bits.
    const LARGEST_SIZE: usize = 1 << 30;

    fn wrong(&self, field: &'static str, actual: impl ToString, expected: impl Into<String>) -> Error {
        Error::Config {
            path: self.path.to_owned(),
            field,
            expected: expected.into(),
            actual: actual.to_string(),
        }
    }

    fn unsupported(&self, field: &'static str, actual: impl ToString, instead: &'static str) -> Error {
        Error::Unsupported { path: self.path.to_owned(), field, actual: actual.to_string(), instead }
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
    fn mpt_30b_has_its_published_parameter_count() {
        let config = MptConfig::mpt(7168, 48, 64, 50432, 8192).unwrap();
        assert_eq!(config.num_parameters(), 29_957_200_896);
        assert_eq!(config.head_dim(), 112);
    }

    #[test]
    fn json_round_trips() {
        let text = r#"{"d_model": 96, "n_heads": 8, "n_layers": 2, "vocab_size": 77, "expansion_ratio": 1.5, "no_bias": false,
            "norm_type": "rmsnorm", "logit_scale": "inv_sqrt_d_model", "tie_word_embeddings": false,
            "ffn_config": {"ffn_type": "mptglu"}, "init_config": {"name": "kaiming_normal_", "emb_init_std": 0.02},
            "attn_config": {"attn_type": "grouped_query_attention", "kv_n_heads": 2, "clip_qkv": 6, "qk_ln": true,
                            "alibi_bias_max": 16, "sliding_window_size": 5}}"#;
        let config = read(text).unwrap();
        assert_eq!(config.ffn_hidden_size, 144);
        assert_eq!(read(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn impossible_and_unsupported_keys_are_named() {
        for (json, named) in [
            (r#"{"n_heads": 10, "d_model": 768}"#, "`n_heads` is 10"),
            (r#"{"d_model": 0}"#, "`d_model` is 0"),
            (r#"{"d_model": 99999999999999}"#, "`d_model`"),
            (r#"{"attn_config": {"rope": true}}"#, "`rope` = true"),
            (r#"{"attn_config": {"prefix_lm": true}}"#, "`prefix_lm`"),
            (r#"{"attn_config": {"clip_qkv": -1}}"#, "`clip_qkv` is -1"),
            (r#"{"emb_pdrop": 0.1}"#, "`emb_pdrop` = 0.1"),
            (r#"{"ffn_config": {"ffn_type": "mptgeglu"}}"#, "write `mptglu`"),
            (r#"{"logit_scale": "big"}"#, "`logit_scale`"),
            (r#"{"model_type": "llama"}"#, "`model_type` is llama"),
        ] {
            let message = read(json).unwrap_err().to_string();
            assert!(message.starts_with("config.json: ") && message.contains(named), "{json}: {message}");
        }
    }

    #[test]
    fn a_run_file_refuses_keys_nobody_knows_and_config_json_passes_over_them() {
        let json = r#"{"d_modle": 64}"#;
        assert!(read(json).is_ok());
        let message = serde_json::from_str::<MptConfig>(json).unwrap_err().to_string();
        assert!(message.contains("d_modle"), "{message}");
    }
}
