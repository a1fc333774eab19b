//! The configuration that a GGUF file's metadata and tensors describe.

use std::path::Path;

use serde_json::json;

use super::metadata::Metadata;
use crate::config::MptConfig;
use crate::error::Result;
use crate::error::damaged;
use crate::params::{Module, ModuleId, ParamId, ParamKind};
use crate::quoted::quoted;
use crate::weights::file::FileTensor;

/// Reads the keys `mpt.*`; what llama.cpp takes from the presence of tensors is taken from it here too.
///
/// `tensors` have checkpoint names.
///
/// # Errors
/// [`Error::WeightsFile`](crate::Error::WeightsFile) naming the key that is missing, and the configuration's errors.
pub(crate) fn read(path: &Path, metadata: &Metadata, tensors: &[FileTensor]) -> Result<MptConfig> {
    let architecture = metadata.text("general.architecture").unwrap_or("none");
    if architecture != "mpt" {
        return Err(damaged(path, format!("the architecture `{}`", quoted(architecture)), "`mpt`"));
    }
    let size = |key: &str| {
        let found = metadata.int(&format!("mpt.{key}")).filter(|&value| value > 0);
        found.ok_or_else(|| damaged(path, format!("no positive `mpt.{key}`"), "the sizes of an MPT model"))
    };
    let shape = |id: ParamId| {
        let name = id.to_string();
        tensors.iter().find(|tensor| tensor.name == name).map(|tensor| &tensor.shape[..])
    };
    let has = |id: ParamId| shape(id).is_some();
    let in_first_block = |module| ModuleId::of_block(0, module);
    let Some(&[vocab_size, _]) = shape(ParamId::weight(Module::Wte)) else {
        return Err(damaged(path, "no matrix `token_embd.weight`", "the embedding of a model"));
    };
    let number = |key: &str| match metadata.float(&format!("mpt.attention.{key}")) {
        Some(value) if !value.is_finite() => {
            Err(damaged(path, format!("`mpt.attention.{key}` of {value}"), "a finite number"))
        }
        value => Ok(value),
    };
    let (n_heads, alibi) = (size("attention.head_count")?, number("max_alibi_bias")?.unwrap_or(0.0));
    let kv_n_heads = metadata.int("mpt.attention.head_count_kv").unwrap_or(n_heads);
    let config = json!({
        "architectures": ["MptForCausalLM"],
        "d_model": size("embedding_length")?,
        "n_heads": n_heads,
        "n_layers": size("block_count")?,
        "max_seq_len": size("context_length")?,
        "vocab_size": vocab_size,
        "no_bias": !has(in_first_block(Module::Norm1).param(ParamKind::Bias)),
        "attention_bias": has(in_first_block(Module::Wqkv).param(ParamKind::Bias)),
        "norm_eps": number("layer_norm_epsilon")?.unwrap_or(1e-5),
        "tie_word_embeddings": !has(ParamId::weight(Module::LmHead)),
        "learned_pos_emb": has(ParamId::weight(Module::Wpe)),
        "ffn_config": { "ffn_hidden_size": size("feed_forward_length")? },
        "attn_config": {
            "attn_type": if kv_n_heads == n_heads { "multihead_attention" } else { "grouped_query_attention" },
            "kv_n_heads": kv_n_heads,
            "alibi": alibi > 0.0,
            "alibi_bias_max": if alibi > 0.0 { alibi } else { 8.0 },
            "clip_qkv": number("clamp_kqv")?.filter(|&clip| clip != 0.0),
            "qk_ln": has(in_first_block(Module::QLn).param(ParamKind::Weight)),
        },
    });
    MptConfig::from_json(&config.to_string(), path)
}
