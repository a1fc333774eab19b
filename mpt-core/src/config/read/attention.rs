//! Raw keys of `attn_config`, their defaults and checks.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::validator::Validator;
use crate::config::{AttnConfig, RopeConfig, RopeScaling};
use crate::error::Result;

/// Keys of `attn_config` as written.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RawAttnConfig {
    /// Heads: `multihead_attention`, `multiquery_attention` or `grouped_query_attention`. By default `multihead_attention`.
    attn_type: Option<String>,
    /// Implementation in other programs: `torch`, `flash`, `triton`, `eager` or `sdpa`; without effect.
    attn_impl: Option<String>,
    /// Dropout rate of the attention weights, in training. By default 0.
    pub(super) attn_pdrop: Option<f64>,
    /// Number of key/value heads of `grouped_query_attention`, a divisor of `n_heads`; ignored by the others.
    kv_n_heads: Option<usize>,
    /// Input width of keys and values; only `d_model` is supported.
    kv_dim: Option<usize>,
    /// Whether queries, keys and values share one projection. By default true.
    fused_qkv: Option<bool>,
    /// Whether the ALiBi bias is added to the scores. By default true; false with the defaults of llm-foundry.
    alibi: Option<bool>,
    /// Largest exponent of the ALiBi slopes. By default 8.
    alibi_bias_max: Option<f64>,
    /// Clamp on the absolute value of queries, keys and values; 0 for none. By default none.
    clip_qkv: Option<f64>,
    /// Whether queries and keys are normed over all heads. By default false.
    qk_ln: Option<bool>,
    /// Whether queries and keys are normed per head; not beside `qk_ln`. By default false.
    qk_gn: Option<bool>,
    /// Factor on the scores. By default `1 / sqrt(d_model / n_heads)`.
    softmax_scale: Option<f64>,
    /// Cap of the scores: `cap * tanh(score / cap)`, after the scale and before the bias. By default none.
    attn_logit_softcapping: Option<f64>,
    /// Whether a token attends to its own document of a packed sequence only. By default false.
    attn_uses_sequence_id: Option<bool>,
    /// Number of keys before its own that a query attends to; negative for all. By default all.
    sliding_window_size: Option<i64>,
    /// Bidirectional attention in a prefix; unsupported.
    prefix_lm: Option<bool>,
    /// Whether queries and keys are rotated by position. By default false.
    rope: Option<bool>,
    /// Base of the frequencies of RoPE. By default 10000.
    rope_theta: Option<f64>,
    /// Implementation of RoPE: `dail` or `hf`; it selects the table below. By default `dail`.
    rope_impl: Option<String>,
    /// RoPE of `rope_impl = "dail"`; only `type = "original"` is supported.
    rope_dail_config: Option<RawRope>,
    /// RoPE of `rope_impl = "hf"`.
    rope_hf_config: Option<RawRope>,
    /// No positional encoding; unsupported.
    nope: Option<bool>,
    /// Position-dependent scaling of the scores; only `attn_scale` 0 is supported.
    attn_temperature_tuning: Option<RawTemperature>,
    /// Sequence parallelism of processes; only 1 is supported.
    seq_parallel_world_size: Option<u64>,
    #[serde(flatten)]
    pub(super) other: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RawRope {
    /// Scaling past the trained length: `no_scaling`, `linear`, `dynamic` or `llama3`; `original` with `dail`. By default
    /// `no_scaling`.
    r#type: Option<String>,
    /// Divisor of positions, or of low frequencies. By default 1.
    factor: Option<f64>,
    /// Low-frequency bound of `llama3`: wavelengths above the original length over this. By default 1.
    low_freq_factor: Option<f64>,
    /// High-frequency bound of `llama3`: wavelengths below the original length over this. By default 4.
    high_freq_factor: Option<f64>,
    /// Sequence length of the original training, of `llama3`. By default 8192.
    original_max_position_embeddings: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RawTemperature {
    /// Growth of the scores; only 0 is supported.
    attn_scale: Option<f64>,
}

impl RawAttnConfig {
    /// Checked options, with defaults filled in.
    pub(super) fn check(
        &self,
        check: &Validator<'_>,
        d_model: usize,
        n_heads: usize,
        head_dim: usize,
        llm_foundry: bool,
    ) -> Result<AttnConfig> {
        self.refuse_unsupported(check, d_model)?;
        let qk = (self.qk_ln.unwrap_or(false), self.qk_gn.unwrap_or(false));
        if qk == (true, true) {
            return Err(check.invalid("qk_gn", true, "false where `qk_ln` is true: a model has one of them"));
        }
        // as in llm-foundry, an explicit `head_dim` does not change the default
        let default_scale = 1.0 / (d_model as f64 / n_heads as f64).sqrt();
        Ok(AttnConfig {
            kv_n_heads: self.kv_n_heads(check, n_heads)?,
            fused_qkv: self.fused_qkv.unwrap_or(true),
            alibi: self.alibi.unwrap_or(!llm_foundry),
            alibi_bias_max: check.positive("alibi_bias_max", self.alibi_bias_max.unwrap_or(8.0))?,
            rope: self
                .rope
                .unwrap_or(false)
                .then(|| self.rope(check, head_dim, d_model / n_heads))
                .transpose()?,
            clip_qkv: self.clip_qkv(check)?,
            qk_ln: qk.0,
            qk_gn: qk.1,
            softmax_scale: check.finite("softmax_scale", self.softmax_scale.unwrap_or(default_scale))?,
            logit_softcapping: check
                .optional_positive("attn_logit_softcapping", self.attn_logit_softcapping)?,
            attn_uses_sequence_id: self.attn_uses_sequence_id.unwrap_or(false),
            sliding_window_size: self.sliding_window_size.and_then(|size| usize::try_from(size).ok()),
        })
    }

    /// Clamp on queries, keys and values; 0 means none, as in llm-foundry.
    fn clip_qkv(&self, check: &Validator<'_>) -> Result<Option<f64>> {
        check.optional_positive("clip_qkv", self.clip_qkv.filter(|&clip| clip != 0.0))
    }

    fn rope(&self, check: &Validator<'_>, head_dim: usize, default_head_dim: usize) -> Result<RopeConfig> {
        if !head_dim.is_multiple_of(2) {
            return Err(check.invalid("head_dim", head_dim, "an even number where `rope` is true"));
        }
        let theta = check.positive("rope_theta", self.rope_theta.unwrap_or(10_000.0))?;
        let scaling = match self.rope_impl.as_deref().unwrap_or("dail") {
            // llm-foundry would rotate the first elements of each head only
            "dail" if head_dim != default_head_dim => {
                let instead = "write \"hf\" where `head_dim` is not d_model / n_heads";
                return Err(check.unsupported("rope_impl", "dail", instead));
            }
            "dail" => self.rope_dail_config.clone().unwrap_or_default().check_dail(check)?,
            "hf" => self.rope_hf_config.clone().unwrap_or_default().check_hf(check)?,
            other => return Err(check.invalid("rope_impl", other, "\"dail\" or \"hf\"")),
        };
        Ok(RopeConfig { theta, scaling })
    }

    fn refuse_unsupported(&self, check: &Validator<'_>, d_model: usize) -> Result<()> {
        let on = |flag: Option<bool>| flag.filter(|&on| on);
        if on(self.prefix_lm).is_some() {
            return Err(check.unsupported("prefix_lm", true, "set it to false: attention is causal"));
        }
        if on(self.nope).is_some() {
            return Err(check.unsupported(
                "nope",
                true,
                "set it to false, and `alibi` and `rope` too if it meant so",
            ));
        }
        check.unset("kv_dim", self.kv_dim.filter(|&dim| dim != d_model))?;
        check.unset("seq_parallel_world_size", self.seq_parallel_world_size.filter(|&size| size > 1))?;
        let scale = self.attn_temperature_tuning.as_ref().and_then(|tuning| tuning.attn_scale);
        check.unset("attn_temperature_tuning", scale.filter(|&scale| scale != 0.0))?;
        match self.attn_impl.as_deref().unwrap_or("torch") {
            // one function under several names, equal up to rounding
            "torch" | "flash" | "triton" | "eager" | "sdpa" => Ok(()),
            other => Err(check.unsupported("attn_impl", other, "write `torch` or `flash`")),
        }
    }

    fn kv_n_heads(&self, check: &Validator<'_>, n_heads: usize) -> Result<usize> {
        let kv_n_heads = match self.attn_type.as_deref().unwrap_or("multihead_attention") {
            "multihead_attention" => n_heads,
            "multiquery_attention" => 1,
            "grouped_query_attention" => check.size("kv_n_heads", self.kv_n_heads.unwrap_or(0))?,
            other => {
                return Err(check.unsupported(
                    "attn_type",
                    other,
                    "multihead_, multiquery_ and grouped_query_attention are built",
                ));
            }
        };
        if !n_heads.is_multiple_of(kv_n_heads) {
            return Err(check.invalid("kv_n_heads", kv_n_heads, format!("a divisor of n_heads = {n_heads}")));
        }
        Ok(kv_n_heads)
    }
}

impl RawRope {
    fn check_dail(&self, check: &Validator<'_>) -> Result<RopeScaling> {
        match self.r#type.as_deref().unwrap_or("original") {
            "original" => Ok(RopeScaling::None),
            other => Err(check.unsupported("rope_dail_config.type", other, "only `original` is built")),
        }
    }

    fn check_hf(&self, check: &Validator<'_>) -> Result<RopeScaling> {
        let positive = |field, value: Option<f64>, default| check.positive(field, value.unwrap_or(default));
        let factor = positive("rope_hf_config.factor", self.factor, 1.0)?;
        match self.r#type.as_deref().unwrap_or("no_scaling") {
            "no_scaling" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor }),
            "dynamic" => Ok(RopeScaling::Dynamic { factor }),
            "llama3" => {
                let low = positive("rope_hf_config.low_freq_factor", self.low_freq_factor, 1.0)?;
                let high = positive("rope_hf_config.high_freq_factor", self.high_freq_factor, 4.0)?;
                if high <= low {
                    return Err(check.invalid(
                        "rope_hf_config.high_freq_factor",
                        high,
                        format!("above {low}"),
                    ));
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
            other => Err(check.invalid(
                "rope_hf_config.type",
                other,
                "\"no_scaling\", \"linear\", \"dynamic\" or \"llama3\"",
            )),
        }
    }
}
