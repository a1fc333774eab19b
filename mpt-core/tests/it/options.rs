//! Cases: one per option of a configuration, and random combinations.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use mpt_core::config::NormType;
use mpt_core::rng::CounterRng;
use mpt_core::{CausalLm, MptConfig};
use serde_json::{Map, Value, json};

/// Vocabulary size of the cases.
const VOCAB: u32 = 40;

/// Keys that each option sets over those of [`config`].
const OPTIONS: &[(&str, &str)] = &[
    ("alibi", "{}"),
    ("alibi of three heads", r#"{"n_heads": 3}"#),
    ("alibi of six heads up to 16", r#"{"n_heads": 6, "attn_config": {"alibi_bias_max": 16}}"#),
    ("no positions", r#"{"learned_pos_emb": false, "attn_config": {"alibi": false}}"#),
    ("learned positions", r#"{"attn_config": {"alibi": false}}"#),
    ("rope dail", r#"{"attn_config": {"alibi": false, "rope": true, "rope_theta": 100}}"#),
    ("rope hf", r#"{"attn_config": {"alibi": false, "rope": true, "rope_impl": "hf"}}"#),
    ("rope beside alibi", r#"{"attn_config": {"alibi": true, "rope": true, "rope_impl": "hf"}}"#),
    (
        "rope linear",
        r#"{"attn_config": {"alibi": false, "rope": true, "rope_impl": "hf", "rope_theta": 50,
            "rope_hf_config": {"type": "linear", "factor": 2.5}}}"#,
    ),
    (
        "rope dynamic",
        r#"{"attn_config": {"alibi": false, "rope": true, "rope_impl": "hf", "rope_theta": 50,
            "rope_hf_config": {"type": "dynamic", "factor": 2}}}"#,
    ),
    (
        "rope llama3", // wavelengths 6.3, 17 and 46 of head_dim 6: kept, interpolated and divided
        r#"{"attn_config": {"alibi": false, "rope": true, "rope_impl": "hf", "rope_theta": 20,
            "rope_hf_config": {"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                               "original_max_position_embeddings": 32}}}"#,
    ),
    ("window", r#"{"attn_config": {"sliding_window_size": 3}}"#),
    ("window of the token itself", r#"{"attn_config": {"sliding_window_size": 0}}"#),
    ("cap of scores", r#"{"attn_config": {"attn_logit_softcapping": 0.8}}"#),
    ("cap of scores without alibi", r#"{"attn_config": {"alibi": false, "attn_logit_softcapping": 0.5}}"#),
    ("cap of logits", r#"{"final_logit_softcapping": 2}"#),
    ("scale of logits", r#"{"logit_scale": 0.37}"#),
    ("scale of logits by the width", r#"{"logit_scale": "inv_sqrt_d_model"}"#),
    (
        "scale and cap of logits",
        r#"{"logit_scale": 3, "final_logit_softcapping": 2, "tie_word_embeddings": false}"#,
    ),
    ("split projections", r#"{"attn_config": {"fused_qkv": false}}"#),
    (
        "split projections of groups",
        r#"{"no_bias": false, "attn_config": {"fused_qkv": false, "attn_type": "grouped_query_attention",
            "kv_n_heads": 2, "clip_qkv": 0.7}}"#,
    ),
    ("wide heads", r#"{"head_dim": 10}"#),
    ("narrow heads, split", r#"{"head_dim": 3, "attn_config": {"fused_qkv": false}}"#),
    (
        "wide heads with rope",
        r#"{"head_dim": 8, "attn_config": {"alibi": false, "rope": true, "rope_impl": "hf"}}"#,
    ),
    ("biases", r#"{"no_bias": false}"#),
    ("biases of the attention alone", r#"{"no_bias": true, "attention_bias": true}"#),
    ("biases but of the attention", r#"{"no_bias": false, "attention_bias": false}"#),
    ("norm of q and k", r#"{"attn_config": {"qk_ln": true}}"#),
    (
        "norm of q and k, groups and biases",
        r#"{"no_bias": false, "attn_config": {"qk_ln": true, "attn_type": "grouped_query_attention", "kv_n_heads": 2}}"#,
    ),
    ("norm of each head", r#"{"attn_config": {"qk_gn": true}}"#),
    (
        "root-mean-square norm of each head, one of k",
        r#"{"norm_type": "rmsnorm", "attn_config": {"qk_gn": true, "attn_type": "multiquery_attention"}}"#,
    ),
    ("groups", r#"{"attn_config": {"attn_type": "grouped_query_attention", "kv_n_heads": 2}}"#),
    ("one head of k", r#"{"attn_config": {"attn_type": "multiquery_attention"}}"#),
    ("glu", r#"{"ffn_config": {"ffn_type": "mptglu"}}"#),
    (
        "glu of silu with biases",
        r#"{"no_bias": false, "ffn_config": {"ffn_type": "mptglu", "ffn_act_fn": {"name": "silu"}}}"#,
    ),
    ("gelu by tanh", r#"{"ffn_config": {"ffn_act_fn": {"name": "gelu", "approximate": "tanh"}}}"#),
    ("quick_gelu", r#"{"ffn_config": {"ffn_act_fn": {"name": "quick_gelu"}}}"#),
    ("relu", r#"{"ffn_config": {"ffn_act_fn": {"name": "relu"}}}"#),
    ("silu", r#"{"ffn_config": {"ffn_act_fn": {"name": "silu"}}}"#),
    ("width of the ffn", r#"{"ffn_config": {"ffn_hidden_size": 37}}"#),
    ("ratio of the ffn", r#"{"expansion_ratio": 1.5}"#),
    ("root-mean-square norm", r#"{"norm_type": "rmsnorm"}"#),
    ("root-mean-square norm with biases", r#"{"norm_type": "rmsnorm", "no_bias": false}"#),
    ("norm_eps", r#"{"norm_eps": 0.1}"#),
    ("untied head", r#"{"tie_word_embeddings": false}"#),
    ("embedding_fraction", r#"{"embedding_fraction": 0.3}"#),
    (
        "embedding_fraction of learned positions, untied",
        r#"{"embedding_fraction": 0.1, "tie_word_embeddings": false, "attn_config": {"alibi": false}}"#,
    ),
    ("softmax_scale", r#"{"attn_config": {"softmax_scale": 0.9}}"#),
    ("clip_qkv", r#"{"attn_config": {"clip_qkv": 0.6}}"#),
    ("documents", r#"{"attn_config": {"attn_uses_sequence_id": true}}"#),
    (
        "documents in a window",
        r#"{"attn_config": {"attn_uses_sequence_id": true, "sliding_window_size": 2}}"#,
    ),
];

/// Number of random combinations.
const RANDOM: u64 = 16;

/// Configuration with random parameters.
pub(crate) struct Case {
    /// Option, or the keys of a random combination.
    pub(crate) name: String,
    pub(crate) config: MptConfig,
    pub(crate) vars: BTreeMap<String, Var>,
}

impl Case {
    /// Random parameters of `config`: norms near 1, biases near 0, linears that preserve magnitudes, so that every cap, clip
    /// and scale of the table has an effect.
    pub(crate) fn new(name: &str, config: MptConfig, seed: u64) -> Self {
        let draw = |(name, shape): (String, Vec<usize>)| {
            let mut rng = CounterRng::named(seed, &name);
            let (mean, deviation) = match shape[..] {
                [_, width] if !name.ends_with("wte.weight") => (0.0, 1.5 / (width as f32).sqrt()),
                [_, _] => (0.0, 0.6),
                _ if name.ends_with(".bias") => (0.0, 0.2),
                _ => (1.0, 0.2),
            };
            let values = (0..shape.iter().product()).map(|_| mean + deviation * rng.normal()).collect();
            let tensor = Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu).expect("a tensor");
            (name, Var::from_tensor(&tensor).expect("a variable"))
        };
        let vars = config.parameter_shapes().into_iter().map(draw).collect();
        Self { name: name.to_owned(), config, vars }
    }

    /// Model under test, which shares the variables.
    pub(crate) fn model(&self) -> CausalLm {
        let tensors: BTreeMap<String, Tensor> =
            self.vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        CausalLm::new(&self.config, &tensors).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Longest sequence of the tests: past `max_seq_len` when the model extrapolates.
    pub(crate) fn longest(&self) -> usize {
        self.config.max_seq_len + if self.config.can_extrapolate() { 6 } else { 0 }
    }
}

/// Cases of the table, then random combinations.
pub(crate) fn cases() -> Vec<Case> {
    let table = OPTIONS.iter().map(|(name, keys)| {
        let keys = serde_json::from_str(keys).expect("an object");
        (String::from(*name), keys)
    });
    let random = (0..RANDOM).map(|seed| {
        let keys = random_keys(seed);
        (Value::from(keys.clone()).to_string(), keys)
    });
    let cases = table.chain(random).enumerate();
    cases.map(|(seed, (name, keys))| Case::new(&name, config(&keys), seed as u64)).collect()
}

/// Configuration of two layers of width 24, overridden by `keys`.
pub(crate) fn config(keys: &Map<String, Value>) -> MptConfig {
    let mut all = json!({"d_model": 24, "n_heads": 4, "n_layers": 2, "vocab_size": VOCAB, "max_seq_len": 12});
    all.as_object_mut().expect("an object").extend(keys.clone());
    let text = all.to_string();
    MptConfig::from_json(&text, Path::new("config.json")).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Row of `n` ids.
pub(crate) fn ids(n: usize, seed: u64) -> Vec<u32> {
    let mut rng = CounterRng::new(seed, 5);
    (0..n).map(|_| (rng.bits() % u64::from(VOCAB)) as u32).collect()
}

/// Random keys over all options.
fn random_keys(seed: u64) -> Map<String, Value> {
    let mut rng = CounterRng::named(seed, "options");
    let mut pick = |choices: &[&str]| -> Value {
        let choice = choices[(rng.bits() % choices.len() as u64) as usize];
        serde_json::from_str(choice).expect("JSON")
    };
    let flag = ["true", "false"];
    let n_heads = pick(&["2", "3", "4", "6"]);
    let kv_n_heads = if n_heads == 6 { pick(&["2", "3"]) } else { json!(1) };
    let norm = pick(&["0", "1", "2"]);
    let attn = json!({
        "attn_type": pick(&["\"multihead_attention\"", "\"multiquery_attention\"", "\"grouped_query_attention\""]),
        "kv_n_heads": kv_n_heads,
        "fused_qkv": pick(&flag),
        "alibi": pick(&flag),
        "alibi_bias_max": pick(&["8", "4"]),
        "rope": pick(&flag),
        "rope_impl": "hf",
        "rope_theta": pick(&["10000", "30"]),
        "rope_hf_config": pick(&[
            r#"{"type": "no_scaling"}"#,
            r#"{"type": "linear", "factor": 3}"#,
            r#"{"type": "dynamic", "factor": 1.5}"#,
            r#"{"type": "llama3", "factor": 4, "original_max_position_embeddings": 24}"#,
        ]),
        "qk_ln": norm == 1,
        "qk_gn": norm == 2,
        "softmax_scale": pick(&["null", "0.6"]),
        "attn_logit_softcapping": pick(&["null", "1.1"]),
        "sliding_window_size": pick(&["-1", "1", "5"]),
        "clip_qkv": pick(&["null", "0.8"]),
    });
    let keys = json!({
        "d_model": pick(&["24", "36", "48"]),
        "n_heads": n_heads,
        "head_dim": pick(&["null", "4", "10"]),
        "no_bias": pick(&flag),
        "attention_bias": pick(&["null", "true", "false"]),
        "norm_type": pick(&["\"low_precision_layernorm\"", "\"rmsnorm\""]),
        "tie_word_embeddings": pick(&flag),
        "learned_pos_emb": pick(&flag),
        "logit_scale": pick(&["null", "0.5"]),
        "final_logit_softcapping": pick(&["null", "3"]),
        "embedding_fraction": pick(&["1", "0.4"]),
        "expansion_ratio": pick(&["4", "2"]),
        "ffn_config": {
            "ffn_type": pick(&["\"mptmlp\"", "\"mptglu\""]),
            "ffn_act_fn": pick(&[
                r#"{"name": "gelu"}"#,
                r#"{"name": "gelu", "approximate": "tanh"}"#,
                r#"{"name": "quick_gelu"}"#,
                r#"{"name": "relu"}"#,
                r#"{"name": "silu"}"#,
            ]),
        },
        "attn_config": attn,
    });
    keys.as_object().expect("an object").clone()
}

/// The table covers the options that it names.
#[test]
fn options_reach_the_configuration() {
    let cases = cases();
    assert_eq!(cases.len(), OPTIONS.len() + RANDOM as usize);
    let count = |holds: fn(&MptConfig) -> bool| cases.iter().filter(|case| holds(&case.config)).count();
    for (holds, least) in [
        ((|config| config.attn_config.rope.is_some()) as fn(&MptConfig) -> bool, 10),
        (|config| config.learned_pos_emb, 2),
        (|config| config.norm_type == NormType::RmsNorm, 6),
        (|config| config.q_width() != config.d_model, 6),
        (|config| config.attn_config.sliding_window_size.is_some(), 6),
        (|config| config.attn_config.kv_n_heads < config.n_heads, 8),
        (|config| config.embedding_fraction < 1.0, 6),
    ] {
        assert!(count(holds) >= least);
    }
    let base = &cases[0].config;
    assert!(cases[1..].iter().all(|case| case.config != *base));
}
