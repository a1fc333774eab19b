//! Serialization of a configuration: transformers' spelling of `config.json`, plus llm-foundry's keys.

use serde_json::{Value, json};

use super::{
    Activation, AttnConfig, EmbeddingInit, FfnType, InitConfig, InitScheme, MptConfig, NormType, RopeConfig,
    RopeScaling,
};

impl MptConfig {
    /// Text of a `config.json` that this crate, transformers and llm-foundry read.
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(&Value::from(self.clone())).expect("a JSON value can be printed");
        text.push('\n');
        text
    }

    /// Keys that transformers' MPT ignores although they change what this model computes.
    pub fn ignored_by_transformers(&self) -> Vec<&'static str> {
        let attn = &self.attn_config;
        let keys = [
            ("alibi", !attn.alibi),
            ("alibi_bias_max", attn.alibi && attn.alibi_bias_max != 8.0),
            ("attention_bias", self.attention_bias),
            ("attn_logit_softcapping", attn.logit_softcapping.is_some()),
            ("attn_type", attn.kv_n_heads != self.n_heads),
            ("attn_uses_sequence_id", attn.attn_uses_sequence_id),
            ("ffn_config", self.ffn_type != FfnType::Mlp || self.activation != Activation::Gelu),
            ("expansion_ratio", self.ffn_hidden_size != 4 * self.d_model),
            ("final_logit_softcapping", self.final_logit_softcapping.is_some()),
            ("fused_qkv", !attn.fused_qkv),
            ("head_dim", self.q_width() != self.d_model),
            ("logit_scale", self.logit_scale.is_some()),
            ("no_bias", !self.no_bias),
            ("norm_type", self.norm_type != NormType::LayerNorm),
            ("qk_ln", attn.qk_ln),
            ("qk_gn", attn.qk_gn),
            ("rope", attn.rope.is_some()),
            ("sliding_window_size", attn.sliding_window_size.is_some()),
        ];
        keys.into_iter().filter(|&(_, ignored)| ignored).map(|(key, _)| key).collect()
    }
}

impl From<MptConfig> for Value {
    /// Keys unknown to transformers are written only when they differ from its behavior.
    fn from(config: MptConfig) -> Self {
        let mut out = json!({
            "architectures": ["MptForCausalLM"],
            "model_type": "mpt",
            "d_model": config.d_model,
            "n_heads": config.n_heads,
            "n_layers": config.n_layers,
            "expansion_ratio": json_number(config.ffn_hidden_size as f64 / config.d_model as f64),
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
            "embedding_fraction": config.embedding_fraction,
            "emb_pdrop": config.dropout.embedding,
            "resid_pdrop": config.dropout.residual,
            "use_cache": true,
            "torch_dtype": "float32",
            "attn_config": attn_json(&config),
        });
        if config.head_dim != config.d_model / config.n_heads {
            out["head_dim"] = json!(config.head_dim);
        }
        if config.attention_bias == config.no_bias {
            out["attention_bias"] = json!(config.attention_bias);
        }
        if let Some(cap) = config.final_logit_softcapping {
            out["final_logit_softcapping"] = json!(cap);
        }
        let default_ffn = config.ffn_type == FfnType::Mlp && config.activation == Activation::Gelu;
        if !default_ffn || !config.ffn_hidden_size.is_multiple_of(config.d_model) {
            out["ffn_config"] = ffn_json(&config);
        }
        if config.init_config != InitConfig::default() {
            out["init_config"] = init_json(&config.init_config);
        }
        out
    }
}

/// JSON number, an integer when the value is whole: transformers checks for integers.
fn json_number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

fn attn_json(config: &MptConfig) -> Value {
    let attn = &config.attn_config;
    let attn_type = match attn.kv_n_heads {
        n if n == config.n_heads => "multihead_attention",
        1 => "multiquery_attention",
        _ => "grouped_query_attention",
    };
    let mut out = json!({
        "alibi": attn.alibi,
        "alibi_bias_max": json_number(attn.alibi_bias_max),
        "attn_impl": "torch",
        "attn_pdrop": json_number(config.dropout.attention),
        "attn_type": attn_type,
        "attn_uses_sequence_id": attn.attn_uses_sequence_id,
        "clip_qkv": attn.clip_qkv,
        "prefix_lm": false,
        "qk_gn": attn.qk_gn,
        "qk_ln": attn.qk_ln,
        "softmax_scale": attn.softmax_scale,
    });
    if attn_type == "grouped_query_attention" {
        out["kv_n_heads"] = json!(attn.kv_n_heads);
    }
    write_optional(&mut out, attn);
    out
}

fn write_optional(out: &mut Value, attn: &AttnConfig) {
    if !attn.fused_qkv {
        out["fused_qkv"] = json!(false);
    }
    if let Some(window) = attn.sliding_window_size {
        out["sliding_window_size"] = json!(window);
    }
    if let Some(cap) = attn.logit_softcapping {
        out["attn_logit_softcapping"] = json!(cap);
    }
    if let Some(RopeConfig { theta, scaling }) = attn.rope {
        out["rope"] = json!(true);
        out["rope_theta"] = json_number(theta);
        out["rope_impl"] = json!("hf");
        out["rope_hf_config"] = match scaling {
            RopeScaling::None => json!({ "type": "no_scaling", "factor": 1.0 }),
            RopeScaling::Linear { factor } => json!({ "type": "linear", "factor": factor }),
            RopeScaling::Dynamic { factor } => json!({ "type": "dynamic", "factor": factor }),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => json!({
                "type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": json_number(original_max_position_embeddings),
            }),
        };
    }
}

fn ffn_json(config: &MptConfig) -> Value {
    let ffn_type = if config.ffn_type == FfnType::Glu { "mptglu" } else { "mptmlp" };
    let mut out = json!({ "ffn_type": ffn_type, "ffn_hidden_size": config.ffn_hidden_size });
    let activation = match config.activation {
        Activation::Gelu => return out,
        Activation::GeluTanh => json!({ "name": "gelu", "approximate": "tanh" }),
        Activation::QuickGelu => json!({ "name": "quick_gelu" }),
        Activation::Relu => json!({ "name": "relu" }),
        Activation::Silu => json!({ "name": "silu" }),
    };
    out["ffn_act_fn"] = activation;
    out
}

fn init_json(init: &InitConfig) -> Value {
    let name = |uniform, stem: &str| format!("{stem}_{}_", if uniform { "uniform" } else { "normal" });
    let mut out = match init.scheme {
        InitScheme::Torch => json!({ "name": "default_" }),
        InitScheme::Baseline { std } => json!({ "name": "baseline_", "init_std": std }),
        InitScheme::Small => json!({ "name": "small_init_" }),
        InitScheme::Neox => json!({ "name": "neox_init_" }),
        InitScheme::Xavier { uniform, gain } => json!({ "name": name(uniform, "xavier"), "init_gain": gain }),
        InitScheme::Kaiming { uniform, fan_out, gain } => {
            let mut out = json!({
                "name": name(uniform, "kaiming"),
                "fan_mode": if fan_out { "fan_out" } else { "fan_in" },
            });
            write_gain(&mut out, gain);
            out
        }
    };
    match init.embedding {
        Some(EmbeddingInit::Normal(std)) => out["emb_init_std"] = json!(std),
        Some(EmbeddingInit::Uniform(low, high)) => out["emb_init_uniform_lim"] = json!([low, high]),
        None => {}
    }
    out["init_div_is_residual"] = init.residual_divisor.map_or(json!(true), |divisor| json!(divisor));
    out
}

/// Writes the nonlinearity that has this gain; `leaky_relu` with its slope when no other has.
fn write_gain(out: &mut Value, gain: f64) {
    let named = [("relu", std::f64::consts::SQRT_2), ("linear", 1.0), ("tanh", 5.0 / 3.0), ("selu", 0.75)];
    match named.iter().find(|&&(_, value)| value == gain) {
        Some((name, _)) => out["init_nonlinearity"] = json!(name),
        None => {
            out["init_nonlinearity"] = json!("leaky_relu");
            out["init_gain"] = json!((2.0 / (gain * gain) - 1.0).max(0.0).sqrt());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::MptConfig;

    fn read(json: &str) -> MptConfig {
        MptConfig::from_json(json, Path::new("config.json")).unwrap()
    }

    #[test]
    fn json_round_trips() {
        for text in [
            "{}",
            r#"{"d_model": 96, "n_heads": 8, "n_layers": 2, "vocab_size": 77, "expansion_ratio": 1.5, "no_bias": false,
                "norm_type": "rmsnorm", "logit_scale": "inv_sqrt_d_model", "tie_word_embeddings": false, "head_dim": 10,
                "attention_bias": false, "final_logit_softcapping": 30, "embedding_fraction": 0.1, "emb_pdrop": 0.1,
                "ffn_config": {"ffn_type": "mptglu", "ffn_act_fn": {"name": "gelu", "approximate": "tanh"}},
                "init_config": {"name": "xavier_uniform_", "init_gain": 0.5, "emb_init_uniform_lim": 0.02},
                "attn_config": {"attn_type": "grouped_query_attention", "kv_n_heads": 2, "clip_qkv": 6, "qk_ln": true,
                                "alibi_bias_max": 16, "sliding_window_size": 5, "attn_logit_softcapping": 50,
                                "fused_qkv": false}}"#,
            r#"{"attn_config": {"alibi": false, "rope": true, "rope_theta": 500000, "rope_impl": "hf",
                "rope_hf_config": {"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                                   "original_max_position_embeddings": 8192}},
                "init_config": {"name": "kaiming_uniform_", "init_nonlinearity": "leaky_relu", "init_gain": 1}}"#,
            r#"{"attn_config": {"alibi": false, "rope": true, "rope_impl": "hf", "rope_hf_config": {"type": "linear", "factor": 2}},
                "init_config": {"name": "baseline_", "init_std": 0.02, "init_div_is_residual": false}}"#,
        ] {
            let config = read(text);
            assert_eq!(read(&config.to_json()), config, "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_written_as_transformers_checks_them() {
        let json = read(r#"{"attn_config": {"clip_qkv": 6}}"#).to_json();
        assert!(json.contains(r#""alibi_bias_max": 8,"#), "{json}");
        assert!(json.contains(r#""attn_pdrop": 0,"#));
        assert!(json.contains(r#""expansion_ratio": 4,"#) && json.contains(r#""clip_qkv": 6.0"#), "{json}");
    }

    #[test]
    fn what_transformers_ignores_is_known() {
        assert!(read("{}").ignored_by_transformers().is_empty());
        let config = read(r#"{"logit_scale": 0.5, "attn_config": {"qk_ln": true}}"#);
        assert_eq!(config.ignored_by_transformers(), ["logit_scale", "qk_ln"]);
    }
}
