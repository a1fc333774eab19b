//! Parser of configurations: raw keys, defaults and checks.
//!
//! Absent keys have the defaults of the program that wrote the file (`defaults`); run files have those of transformers.

mod attention;
mod defaults;
mod ffn;
mod init;
mod model;
mod validator;

use std::path::Path;

use super::MptConfig;
use crate::bounded_file::read_config;
use crate::error::{Error, Result, damaged};

pub use defaults::ConfigDefaults;
pub(super) use model::RawMptConfig;
use validator::Validator;

impl MptConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::ConfigSyntax`], and [`Error::Config`] or [`Error::Unsupported`] naming the key.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::from_json(&read_config(path)?, path)
    }

    /// Parses the text of a `config.json`. `origin` is the path in errors. Unknown keys are ignored: other programs keep
    /// theirs there.
    ///
    /// # Errors
    /// As [`MptConfig::from_file`].
    pub fn from_json(text: &str, origin: &Path) -> Result<Self> {
        let raw: RawMptConfig =
            serde_json::from_str(text).map_err(|source| syntax_error(text, origin, source))?;
        raw.check(origin)
    }

    /// Whether `key` is a key of a `config.json` that this crate reads.
    pub(crate) fn is_config_key(key: &str) -> bool {
        serde_json::from_value::<RawMptConfig>(serde_json::json!({ key: null }))
            .is_ok_and(|raw| raw.other.is_empty())
    }
}

/// Error for text that is not JSON, with known deviations of other writers named.
fn syntax_error(text: &str, origin: &Path, source: serde_json::Error) -> Error {
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

/// Keys without effect on the model: those of other programs, and those that none reads.
const IGNORED_KEYS: &[&str] = &[
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

    /// Parses the `[model]` table of a run file, where an unknown key is an error.
    fn try_from(raw: RawMptConfig) -> Result<Self> {
        let check = Validator { path: Path::new("[model]") };
        check.known_keys(&raw.other, IGNORED_KEYS)?;
        if let Some(attn) = &raw.attn_config {
            check.known_keys(&attn.other, &["model_type"])?;
        }
        raw.check(check.path)
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
