//! The keys of `attn_config`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::checker::Checker;
use crate::config::{AttnConfig, RopeConfig, RopeScaling};
use crate::error::Result;

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RawAttnConfig {
    /// Heads: `multihead_attention`, `multiquery_attention` or `grouped_query_attention`. By default the first.
    attn_type: Option<String>,
    /// Implementation elsewhere: `torch`, `flash`, `triton`, `eager` or `sdpa`, one function here.
    attn_impl: Option<String>,
    /// Rate of dropout of attention's probabilities, in training. By default 0.
    pub(super) attn_pdrop: Option<f64>,
    /// Key/value heads of `grouped_query_attention`, a divisor of `n_heads`; not read with the others.
    kv_n_heads: Option<usize>,
    /// Width that keys and values are made from; refused unless it is `d_model`.
    kv_dim: Option<usize>,
    /// Whether queries, keys and values come from one projection. By default true.
    fused_qkv: Option<bool>,
    /// Whether scores carry the ALiBi bias. By default true; false with the defaults of llm-foundry.
    alibi: Option<bool>,
    /// Largest exponent of the ALiBi slopes. By default 8.
    alibi_bias_max: Option<f64>,
    /// Bound on the absolute value of queries, keys and values; 0 for none. By default none.
    clip_qkv: Option<f64>,
    /// Whether a norm over all of q and one over all of k follow the projection. By default false.
    qk_ln: Option<bool>,
    /// Whether a norm over each head of q and k follows the projection; not beside `qk_ln`. By default false.
    qk_gn: Option<bool>,
    /// Factor on the scores. By default 1 over the root of `d_model / n_heads`.
    softmax_scale: Option<f64>,
    /// Cap of the scores: `cap * tanh(score / cap)`, after the scale and before the bias. By default none.
    attn_logit_softcapping: Option<f64>,
    /// Whether a token sees only its own document of a packed sequence. By default false.
    attn_uses_sequence_id: Option<bool>,
    /// Keys before its own that a query sees; all where negative. By default all.
    sliding_window_size: Option<i64>,
    /// Attention both ways in a prefix; refused where it is true.
    prefix_lm: Option<bool>,
    /// Whether queries and keys are rotated by position. By default false.
    rope: Option<bool>,
    /// Base of the frequencies of RoPE. By default 10000.
    rope_theta: Option<f64>,
    /// Which of the two tables of RoPE is read: `dail` or `hf`. By default `dail`.
    rope_impl: Option<String>,
    /// RoPE of `rope_impl = "dail"`: `type` is `original`.
    rope_dail_config: Option<RawRope>,
    /// RoPE of `rope_impl = "hf"`.
    rope_hf_config: Option<RawRope>,
    /// No positions at all; refused where it is true.
    nope: Option<bool>,
    /// Scores that grow with the position; refused unless `attn_scale` is 0.
    attn_temperature_tuning: Option<RawTemperature>,
    /// Processes that share a sequence; refused above 1.
    seq_parallel_world_size: Option<u64>,
    #[serde(flatten)]
    pub(super) other: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RawRope {
    /// What reaches past the trained length: `no_scaling`, `linear`, `dynamic` or `llama3`; with `dail` `original` alone.
    /// By default none.
    r#type: Option<String>,
    /// Divisor of positions, or of low frequencies. By default 1.
    factor: Option<f64>,
    /// Of `llama3`: wavelengths beyond the original length by this divisor are low frequencies. By default 1.
    low_freq_factor: Option<f64>,
    /// Of `llama3`: wavelengths below the original length by this divisor are high frequencies. By default 4.
    high_freq_factor: Option<f64>,
    /// Of `llama3`: length the model was first trained with. By default 8192.
    original_max_position_embeddings: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RawTemperature {
    /// Growth of the scores; refused unless it is 0.
    attn_scale: Option<f64>,
}

impl RawAttnConfig {
    pub(super) fn check(
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
