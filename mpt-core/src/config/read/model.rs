//! Raw top-level keys of a configuration, their defaults and checks.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::attention::RawAttnConfig;
use super::ffn::RawFfnConfig;
use super::init::RawInitConfig;
use super::validator::Validator;
use crate::config::{DropoutRates, MptConfig, NormType};
use crate::error::Result;

/// Keys of a `config.json` or of `[model]` as written, under the names of llm-foundry and transformers.
#[derive(Clone, Debug, Default, Deserialize)]
pub(in crate::config) struct RawMptConfig {
    /// `mpt` or absent.
    model_type: Option<String>,
    /// Class that wrote the configuration; `MPTForCausalLM` brings the defaults of llm-foundry.
    architectures: Option<Vec<String>>,
    /// Remote code of the model; its presence brings the defaults of llm-foundry.
    auto_map: Option<Value>,
    /// Width of the residual stream. By default 2048.
    d_model: Option<usize>,
    /// Number of query heads, a divisor of `d_model`. By default 16.
    n_heads: Option<usize>,
    /// Number of blocks. By default 24.
    n_layers: Option<usize>,
    /// Ratio of `ffn_hidden_size` to `d_model`. By default 4.
    expansion_ratio: Option<f64>,
    /// Trained sequence length. By default 2048.
    max_seq_len: Option<usize>,
    /// Number of embedding rows, padding included. By default 50368.
    vocab_size: Option<usize>,
    /// Width of a head. By default `d_model / n_heads`.
    head_dim: Option<usize>,
    /// Whether linears and norms have no bias. By default true; false with the defaults of llm-foundry.
    no_bias: Option<bool>,
    /// Whether the projections to queries, keys and values have a bias. By default the opposite of `no_bias`.
    attention_bias: Option<bool>,
    /// Norm: `layernorm` or `rmsnorm`, with or without the prefix `low_precision_`, which has no effect. By default
    /// `low_precision_layernorm`.
    norm_type: Option<String>,
    /// Epsilon added to the variance in a norm. By default 1e-5.
    norm_eps: Option<f64>,
    /// Other name of `norm_eps`, which takes precedence.
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
    /// Dropout rate of the embeddings, in training. By default 0.
    emb_pdrop: Option<f64>,
    /// Dropout rate of the branches that a block adds to the residual stream, in training. By default 0.
    resid_pdrop: Option<f64>,
    /// Blocks that differ from each other; unsupported.
    block_overrides: Option<Value>,
    /// Attention options.
    pub(super) attn_config: Option<RawAttnConfig>,
    /// Feed-forward layer.
    ffn_config: Option<RawFfnConfig>,
    /// Random initialization.
    init_config: Option<RawInitConfig>,
    #[serde(flatten)]
    pub(super) other: BTreeMap<String, Value>,
}

/// Checked sizes of a model.
struct Sizes {
    d_model: usize,
    n_heads: usize,
    head_dim: usize,
    n_layers: usize,
}

impl RawMptConfig {
    /// Keys of [`MptConfig::mpt`]; all others are absent.
    pub(in crate::config) fn sizes(
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

    /// Checked configuration, with defaults filled in.
    pub(in crate::config) fn check(self, path: &Path) -> Result<MptConfig> {
        let check = Validator { path };
        if let Some(kind) = self.model_type.as_deref().filter(|kind| *kind != "mpt") {
            return Err(check.invalid("model_type", kind, "\"mpt\""));
        }
        check.unset("block_overrides", self.block_overrides.as_ref().filter(|value| !value.is_null()))?;
        let llm_foundry = self.has_llm_foundry_defaults();
        let Sizes { d_model, n_heads, head_dim, n_layers } = self.checked_sizes(&check)?;
        let max_seq_len = check.size("max_seq_len", self.max_seq_len.unwrap_or(2048))?;
        let no_bias = self.no_bias.unwrap_or(!llm_foundry);
        let raw_attn = self.attn_config.clone().unwrap_or_default();
        let attn_config = raw_attn.check(&check, d_model, n_heads, head_dim, llm_foundry)?;
        // llm-foundry disables learned positions under ALiBi and RoPE, whatever the key says
        let learned_pos_emb =
            self.learned_pos_emb.unwrap_or(true) && !attn_config.alibi && attn_config.rope.is_none();
        let ffn = self.ffn_config.clone().unwrap_or_default();
        let norm_eps = self.norm_eps.or(self.layer_norm_epsilon).unwrap_or(1e-5);
        let final_cap = self.final_logit_softcapping;
        Ok(MptConfig {
            d_model,
            n_heads,
            n_layers,
            head_dim,
            ffn_hidden_size: ffn.hidden_size(&check, d_model, self.expansion_ratio)?,
            ffn_type: ffn.ffn_type(&check)?,
            activation: ffn.activation(&check)?,
            max_seq_len,
            vocab_size: check.size("vocab_size", self.vocab_size.unwrap_or(50368))?,
            no_bias,
            attention_bias: self.attention_bias.unwrap_or(!no_bias),
            norm_type: self.norm_type(&check)?,
            norm_eps: check.positive("norm_eps", norm_eps)?,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(true),
            learned_pos_emb,
            logit_scale: self.logit_scale(&check, d_model)?,
            final_logit_softcapping: check.optional_positive("final_logit_softcapping", final_cap)?,
            embedding_fraction: check
                .fraction("embedding_fraction", self.embedding_fraction.unwrap_or(1.0))?,
            dropout: DropoutRates {
                embedding: check.rate("emb_pdrop", self.emb_pdrop)?,
                residual: check.rate("resid_pdrop", self.resid_pdrop)?,
                attention: check.rate("attn_pdrop", raw_attn.attn_pdrop)?,
            },
            attn_config,
            init_config: self.init_config.unwrap_or_default().check(&check)?,
        })
    }

    /// Width, heads and layers, which bound each other.
    fn checked_sizes(&self, check: &Validator<'_>) -> Result<Sizes> {
        let d_model = check.size("d_model", self.d_model.unwrap_or(2048))?;
        let n_heads = check.size("n_heads", self.n_heads.unwrap_or(16))?;
        if !d_model.is_multiple_of(n_heads) {
            return Err(check.invalid("n_heads", n_heads, format!("a divisor of d_model = {d_model}")));
        }
        let head_dim = check.size("head_dim", self.head_dim.unwrap_or(d_model / n_heads))?;
        if n_heads * head_dim > Validator::MAX_SIZE {
            return Err(check.invalid("head_dim", head_dim, format!("at most 2^30 / {n_heads} heads")));
        }
        let n_layers = check.size("n_layers", self.n_layers.unwrap_or(24))?;
        if n_layers > Validator::MAX_LAYERS {
            return Err(check.invalid("n_layers", n_layers, "a number from 1 to 2^16"));
        }
        Ok(Sizes { d_model, n_heads, head_dim, n_layers })
    }

    /// Whether llm-foundry wrote the configuration.
    pub(super) fn has_llm_foundry_defaults(&self) -> bool {
        let names = self.architectures.iter().flatten().any(|name| name == "MPTForCausalLM");
        names || self.auto_map.as_ref().is_some_and(|map| !map.is_null())
    }

    fn norm_type(&self, check: &Validator<'_>) -> Result<NormType> {
        let norm_type = self.norm_type.as_deref().unwrap_or("low_precision_layernorm").to_lowercase();
        match norm_type.as_str() {
            "layernorm" | "low_precision_layernorm" => Ok(NormType::LayerNorm),
            "rmsnorm" | "low_precision_rmsnorm" | "triton_rmsnorm" => Ok(NormType::RmsNorm),
            other => Err(check.unsupported(
                "norm_type",
                other,
                "`layernorm`, `rmsnorm` and their low_precision_ forms are built",
            )),
        }
    }

    fn logit_scale(&self, check: &Validator<'_>, d_model: usize) -> Result<Option<f64>> {
        match &self.logit_scale {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) if name == "inv_sqrt_d_model" => {
                Ok(Some(1.0 / (d_model as f64).sqrt()))
            }
            Some(Value::Number(scale)) if scale.as_f64().is_some_and(f64::is_finite) => Ok(scale.as_f64()),
            Some(other) => {
                Err(check.invalid("logit_scale", other, "null, a finite number or \"inv_sqrt_d_model\""))
            }
        }
    }
}
