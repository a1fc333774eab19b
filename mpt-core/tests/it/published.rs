//! Configurations of published models in llm-foundry's spelling.

use std::path::Path;

use mpt_core::MptConfig;
use mpt_core::config::InitConfig;

/// Common keys of the published files. Keys such as `verbose` are read by no program.
fn published(sizes: &str, attention: &str) -> MptConfig {
    let text = format!(
        r#"{{
            "architectures": ["MPTForCausalLM"],
            "attn_config": {{
                "alibi": true, "attn_impl": "torch", "attn_pdrop": 0, "attn_type": "multihead_attention",
                "attn_uses_sequence_id": false, "prefix_lm": false, "qk_ln": false, "softmax_scale": null,
                {attention}
            }},
            "auto_map": {{
                "AutoConfig": "configuration_mpt.MPTConfig",
                "AutoModelForCausalLM": "modeling_mpt.MPTForCausalLM"
            }},
            "emb_pdrop": 0, "embedding_fraction": 1.0, "expansion_ratio": 4,
            "init_config": {{
                "emb_init_std": null, "emb_init_uniform_lim": null, "fan_mode": "fan_in",
                "init_div_is_residual": true, "init_gain": 0, "init_nonlinearity": "relu", "init_std": 0.02,
                "name": "kaiming_normal_", "verbose": 0
            }},
            "init_device": "cpu", "learned_pos_emb": true, "logit_scale": null, "model_type": "mpt",
            "no_bias": true, "norm_type": "low_precision_layernorm", "resid_pdrop": 0,
            "tokenizer_name": "EleutherAI/gpt-neox-20b", "torch_dtype": "bfloat16",
            "transformers_version": "4.28.1", "use_cache": false, "verbose": 0, "vocab_size": 50432,
            {sizes}
        }}"#
    );
    MptConfig::from_json(&text, Path::new("config.json")).expect("a published configuration")
}

const MPT_7B: &str = r#""d_model": 4096, "n_heads": 32, "n_layers": 32, "max_seq_len": 2048"#;
const MPT_30B: &str = r#""d_model": 7168, "n_heads": 64, "n_layers": 48, "max_seq_len": 8192"#;
const PLAIN: &str = r#""alibi_bias_max": 8, "clip_qkv": null"#;

#[test]
fn mpt_7b_is_the_preset() {
    let config = published(MPT_7B, PLAIN);
    assert_eq!(config, MptConfig::preset("mpt-7b").expect("a preset"));
    assert_eq!(config.num_parameters(), 6_649_286_656);
}

#[test]
fn mpt_30b_is_the_preset() {
    let config = published(MPT_30B, PLAIN);
    assert_eq!(config, MptConfig::preset("mpt-30b").expect("a preset"));
    assert_eq!(config.num_parameters(), 29_957_200_896);
    assert_eq!(config.head_dim, 112);
    assert!(config.no_bias && !config.attention_bias && !config.learned_pos_emb);
    assert!(config.tie_word_embeddings && config.attn_config.alibi && config.attn_config.fused_qkv);
    assert_eq!(config.init_config, InitConfig::default());
    assert!(config.ignored_by_transformers().is_empty());
}

/// A file of a later llm-foundry: more keys, at their defaults.
#[test]
fn mpt_30b_chat_is_mpt_30b() {
    let attention = r#""alibi_bias_max": 8, "clip_qkv": null, "qk_gn": false, "fused_qkv": true, "rope": false,
        "rope_theta": 10000, "rope_impl": "dail", "sliding_window_size": -1,
        "rope_dail_config": {"type": "original", "pos_idx_in_fp32": true, "xpos_scale_base": 512},
        "rope_hf_config": {"type": "no_scaling", "factor": 1.0}"#;
    let sizes = format!(
        r#"{MPT_30B}, "ffn_config": {{"fc_type": "torch", "ffn_type": "mptmlp"}}, "fc_type": "torch",
        "norm_eps": 1e-05, "tie_word_embeddings": true, "use_pad_tok_in_ffn": true"#
    );
    assert_eq!(published(&sizes, attention), published(MPT_30B, PLAIN));
}

#[test]
fn mpt_7b_storywriter_has_steeper_slopes_and_a_clip() {
    let sizes = r#""d_model": 4096, "n_heads": 32, "n_layers": 32, "max_seq_len": 65536"#;
    let config = published(sizes, r#""alibi_bias_max": 16, "clip_qkv": 6"#);
    assert_eq!(config.attn_config.alibi_bias_max, 16.0);
    assert_eq!(config.attn_config.clip_qkv, Some(6.0));
    assert_eq!(config.max_seq_len, 65536);
    assert_eq!(config.num_parameters(), 6_649_286_656);
    assert_eq!(config.ignored_by_transformers(), ["alibi_bias_max"]);
}

/// Absent keys have llm-foundry's defaults: learned positions and biases.
#[test]
fn keys_left_out_of_a_remote_code_file_have_its_defaults() {
    let text = r#"{"auto_map": {"AutoConfig": "configuration_mpt.MPTConfig"}, "d_model": 64, "n_heads": 4,
        "n_layers": 2, "vocab_size": 100, "max_seq_len": 32}"#;
    let config = MptConfig::from_json(text, Path::new("config.json")).expect("a configuration");
    assert!(config.learned_pos_emb && !config.no_bias && config.attention_bias && !config.attn_config.alibi);
    // embedding, positions, the last norm; two blocks of two norms, four linears and their biases
    let block = 4 * 64 + (3 * 64 + 64 + 4 * 64 + 4 * 64) * 64 + (3 * 64 + 64 + 4 * 64 + 64);
    assert_eq!(config.num_parameters(), (100 * 64 + 32 * 64 + 2 * 64 + 2 * block) as u64);
}
