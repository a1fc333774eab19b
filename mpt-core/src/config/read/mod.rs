//! Reading a configuration: raw keys, their defaults, and every check.
//!
//! Defaults are those of the program that wrote the file: llm-foundry's where `architectures` or `auto_map` name its
//! remote code (`MPTForCausalLM`), else those of transformers (`MptForCausalLM`), which run files follow too.

mod attention;
mod checker;
mod init;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use attention::RawAttnConfig;
use checker::Checker;
use init::RawInitConfig;

use super::{Activation, DropoutRates, FfnType, MptConfig, NormType};
use crate::error::{Error, Result, damaged};

/// Whose defaults hold for the keys that a `config.json` leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defaults {
    /// Those of llm-foundry's remote code: `architectures` names `MPTForCausalLM`, or there is an `auto_map`.
    Foundry,
    /// Those of transformers, whose class is `MptForCausalLM`.
    Transformers,
}

impl Defaults {
    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Foundry => "llm-foundry",
            Self::Transformers => "transformers",
        }
    }

    /// Whose defaults hold in a `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::ConfigSyntax`].
    pub fn of_file(path: &Path) -> Result<Self> {
        let text = crate::bounded_file::read_config(path)?;
        let raw: RawMptConfig = serde_json::from_str(&text).map_err(|source| syntax(&text, path, source))?;
        Ok(if raw.is_by_foundry() { Self::Foundry } else { Self::Transformers })
    }
}

impl MptConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::ConfigSyntax`], and [`Error::Config`] or [`Error::Unsupported`] naming the key.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = crate::bounded_file::read_config(path)?;
        Self::from_json(&text, path)
    }

    /// Reads the text of a `config.json`; `origin` names it in errors. Keys that no MPT program reads are passed over,
    /// as other programs keep their own keys there.
    ///
    /// # Errors
    /// As [`MptConfig::from_file`].
    pub fn from_json(text: &str, origin: &Path) -> Result<Self> {
        let raw: RawMptConfig = serde_json::from_str(text).map_err(|source| syntax(text, origin, source))?;
        raw.check(origin)
    }
}

/// The error about a text that is no JSON, by what other programs write that is none.
fn syntax(text: &str, origin: &Path, source: serde_json::Error) -> Error {
    if text.starts_with('\u{feff}') {
        return damaged(origin, "a byte-order mark before the JSON", "UTF-8 without one; save it again");
    }
    let here = text.lines().nth(source.line().saturating_sub(1)).unwrap_or_default();
    let here = here.get(source.column().saturating_sub(2)..).unwrap_or_default();
    let here = here.trim_start_matches([' ', ':', ',', '[', '-']);
    match ["NaN", "Infinity"].into_iter().find(|name| here.starts_with(name)) {
        Some(name) if source.is_syntax() => {
            let found =
                format!("line {}: `{name}`, which Python writes and JSON does not have", source.line());
            damaged(origin, found, "a finite number or null")
        }
        _ => Error::ConfigSyntax { path: origin.to_owned(), source },
    }
}

impl MptConfig {
    /// Whether `key` is a key of a `config.json` that this crate reads.
    pub(crate) fn knows_key(key: &str) -> bool {
        serde_json::from_value::<RawMptConfig>(serde_json::json!({ key: null }))
            .is_ok_and(|raw| raw.other.is_empty())
    }
}

/// Keys of a `config.json` or of `[model]`, as llm-foundry and transformers call them.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RawMptConfig {
    /// `mpt`, where it is there.
    model_type: Option<String>,
    /// Class that wrote the configuration; `MPTForCausalLM` brings the defaults of llm-foundry.
    architectures: Option<Vec<String>>,
    /// Remote code of the model; where it is there, the defaults are those of llm-foundry.
    auto_map: Option<Value>,
    /// Width of the residual stream. By default 2048.
    d_model: Option<usize>,
    /// Query heads, a divisor of `d_model`. By default 16.
    n_heads: Option<usize>,
    /// Blocks. By default 24.
    n_layers: Option<usize>,
    /// Width of the feed-forward layer over `d_model`. By default 4.
    expansion_ratio: Option<f64>,
    /// Positions the model is trained with. By default 2048.
    max_seq_len: Option<usize>,
    /// Rows of the embedding, padding included. By default 50368.
    vocab_size: Option<usize>,
    /// Width of one head. By default `d_model / n_heads`.
    head_dim: Option<usize>,
    /// Whether linears and norms have no bias. By default true; false with the defaults of llm-foundry.
    no_bias: Option<bool>,
    /// Whether the projections to queries, keys and values have a bias. By default the opposite of `no_bias`.
    attention_bias: Option<bool>,
    /// Norm: `layernorm`, `rmsnorm`, or either with `low_precision_` before it, which is the same here. By default
    /// `low_precision_layernorm`.
    norm_type: Option<String>,
    /// Term added to the variance in a norm. By default 1e-5.
    norm_eps: Option<f64>,
    /// Another name of `norm_eps`, read where that is absent.
    layer_norm_epsilon: Option<f64>,
    /// Whether the output projection is the embedding. By default true.
    tie_word_embeddings: Option<bool>,
    /// Whether positions have a learned embedding; ALiBi and RoPE switch it off. By default true.
    learned_pos_emb: Option<bool>,
    /// Factor on the logits, or `inv_sqrt_d_model`. By default none.
    logit_scale: Option<Value>,
    /// Cap of the logits: `cap * tanh(logit / cap)`, after the scale. By default none.
    final_logit_softcapping: Option<f64>,
    /// Factor on the gradient of the embeddings, above 0. By default 1.
    embedding_fraction: Option<f64>,
    /// Rate of dropout of the embeddings, in training. By default 0.
    emb_pdrop: Option<f64>,
    /// Rate of dropout of what a block adds to the residual stream, in training. By default 0.
    resid_pdrop: Option<f64>,
    /// Blocks that differ from each other; refused where it is set.
    block_overrides: Option<Value>,
    /// Attention.
    attn_config: Option<RawAttnConfig>,
    /// The feed-forward layer.
    ffn_config: Option<RawFfnConfig>,
    /// How random weights are drawn.
    init_config: Option<RawInitConfig>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RawFfnConfig {
    /// Form of the layer: `mptmlp`, or `mptglu` with a gate. By default `mptmlp`.
    ffn_type: Option<String>,
    /// Width of the layer. By default `expansion_ratio * d_model`.
    ffn_hidden_size: Option<usize>,
    /// Activation. By default the exact GELU.
    ffn_act_fn: Option<RawActivation>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RawActivation {
    /// Name in torch: `gelu`, `quick_gelu`, `relu` or `silu`. By default `gelu`.
    name: Option<String>,
    /// Of `gelu`: `none` for the exact one, `tanh` for the approximation. By default `none`.
    approximate: Option<String>,
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
            dropout: DropoutRates {
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
