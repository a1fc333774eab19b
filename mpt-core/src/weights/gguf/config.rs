//! Configuration of a model from GGUF metadata and tensors, and back.

use std::path::Path;

use serde_json::json;

use super::metadata::GgufMetadata;
use super::types::file_type;
use super::write::GgufWriter;
use crate::config::{Activation, FfnType, MptConfig, NormType};
use crate::dtype::WeightDtype;
use crate::error::{Error, Result, damaged};
use crate::params::{Module, ModuleId, ParamId, ParamKind};
use crate::quoted::quoted;
use crate::weights::file::FileTensor;

/// Reads the keys `mpt.*`. As in llama.cpp, biases, norms and a separate head follow from the presence of their tensors.
/// `tensors` have checkpoint names.
///
/// # Errors
/// [`Error::WeightsFile`] naming the missing key, and the configuration's errors.
pub(crate) fn read(path: &Path, metadata: &GgufMetadata, tensors: &[FileTensor]) -> Result<MptConfig> {
    let architecture = metadata.text("general.architecture").unwrap_or("none");
    if architecture != "mpt" {
        return Err(damaged(path, format!("the architecture `{}`", quoted(architecture)), "`mpt`"));
    }
    let gguf = Contents { path, metadata, tensors };
    let Some(&[vocab_size, _]) = gguf.shape(ParamId::weight(Module::Wte)) else {
        return Err(damaged(path, "no matrix `token_embd.weight`", "the embedding of a model"));
    };
    let in_first_block = |module, kind| gguf.has(ModuleId::of_block(0, module).param(kind));
    let n_heads = gguf.size("attention.head_count")?;
    let alibi = gguf.attention_float("max_alibi_bias")?.unwrap_or(0.0);
    let kv_n_heads = metadata.int("mpt.attention.head_count_kv").unwrap_or(n_heads);
    let config = json!({
        "architectures": ["MptForCausalLM"],
        "d_model": gguf.size("embedding_length")?,
        "n_heads": n_heads,
        "n_layers": gguf.size("block_count")?,
        "max_seq_len": gguf.size("context_length")?,
        "vocab_size": vocab_size,
        "no_bias": !in_first_block(Module::Norm1, ParamKind::Bias),
        "attention_bias": in_first_block(Module::Wqkv, ParamKind::Bias),
        "norm_eps": gguf.attention_float("layer_norm_epsilon")?.unwrap_or(1e-5),
        "tie_word_embeddings": !gguf.has(ParamId::weight(Module::LmHead)),
        "learned_pos_emb": gguf.has(ParamId::weight(Module::Wpe)),
        "ffn_config": { "ffn_hidden_size": gguf.size("feed_forward_length")? },
        "attn_config": {
            "attn_type": if kv_n_heads == n_heads { "multihead_attention" } else { "grouped_query_attention" },
            "kv_n_heads": kv_n_heads,
            "alibi": alibi > 0.0,
            "alibi_bias_max": if alibi > 0.0 { alibi } else { 8.0 },
            "clip_qkv": gguf.attention_float("clamp_kqv")?.filter(|&clip| clip != 0.0),
            "qk_ln": in_first_block(Module::QLn, ParamKind::Weight),
        },
    });
    MptConfig::from_json(&config.to_string(), path)
}

/// Metadata and tensors of a GGUF file.
struct Contents<'a> {
    path: &'a Path,
    metadata: &'a GgufMetadata,
    tensors: &'a [FileTensor],
}

impl Contents<'_> {
    /// Positive integer `mpt.{key}`.
    fn size(&self, key: &str) -> Result<i64> {
        let found = self.metadata.int(&format!("mpt.{key}")).filter(|&value| value > 0);
        let missing = || damaged(self.path, format!("no positive `mpt.{key}`"), "the sizes of an MPT model");
        found.ok_or_else(missing)
    }

    /// Finite number `mpt.attention.{key}`; `None` when it is absent.
    fn attention_float(&self, key: &str) -> Result<Option<f64>> {
        match self.metadata.float(&format!("mpt.attention.{key}")) {
            Some(value) if !value.is_finite() => {
                let found = format!("`mpt.attention.{key}` of {value}");
                Err(damaged(self.path, found, "a finite number"))
            }
            value => Ok(value),
        }
    }

    /// Shape of a parameter; `None` without its tensor.
    fn shape(&self, id: ParamId) -> Option<&[usize]> {
        let name = id.to_string();
        self.tensors.iter().find(|tensor| tensor.name == name).map(|tensor| &tensor.shape[..])
    }

    fn has(&self, id: ParamId) -> bool {
        self.shape(id).is_some()
    }
}

/// Header with the keys of a configuration; `name` is `general.name`, `dtype` that of most matrices.
///
/// # Errors
/// [`Error::Unsupported`] naming an option that llama.cpp's MPT lacks.
pub(crate) fn metadata_of(config: &MptConfig, name: &str, dtype: WeightDtype) -> Result<GgufWriter> {
    refuse_unsupported(config)?;
    let attn = &config.attn_config;
    let mut out = GgufWriter::default();
    let size = |value: usize| u32::try_from(value).expect("sizes of a checked configuration fit 32 bits");
    out.text("general.architecture", "mpt");
    out.text("general.type", "model");
    out.text("general.name", name);
    out.int("general.file_type", file_type(dtype));
    if dtype.is_quantized() {
        out.int("general.quantization_version", 2);
    }
    out.int("mpt.context_length", size(config.max_seq_len));
    out.int("mpt.embedding_length", size(config.d_model));
    out.int("mpt.block_count", size(config.n_layers));
    out.int("mpt.feed_forward_length", size(config.ffn_hidden_size));
    out.int("mpt.attention.head_count", size(config.n_heads));
    out.int("mpt.attention.head_count_kv", size(attn.kv_n_heads));
    out.float("mpt.attention.layer_norm_epsilon", config.norm_eps as f32);
    if let Some(clip) = attn.clip_qkv {
        out.float("mpt.attention.clamp_kqv", clip as f32);
    }
    out.float("mpt.attention.max_alibi_bias", if attn.alibi { attn.alibi_bias_max as f32 } else { 0.0 });
    Ok(out)
}

/// Refuses options that llama.cpp's MPT lacks. It has layer norms, an ungated GELU and the scale `1/sqrt(head_dim)`.
fn refuse_unsupported(config: &MptConfig) -> Result<()> {
    let attn = &config.attn_config;
    let own_scale = (attn.softmax_scale * (config.head_dim as f64).sqrt() - 1.0).abs() > 1e-6;
    let found = [
        ("attn_logit_softcapping", attn.logit_softcapping.is_some()),
        ("attn_uses_sequence_id", attn.attn_uses_sequence_id),
        ("ffn_act_fn", config.activation != Activation::Gelu),
        ("ffn_type", config.ffn_type != FfnType::Mlp),
        ("final_logit_softcapping", config.final_logit_softcapping.is_some()),
        ("fused_qkv", !attn.fused_qkv),
        ("head_dim", config.q_width() != config.d_model),
        ("logit_scale", config.logit_scale.is_some_and(|scale| scale != 1.0)),
        ("norm_type", config.norm_type != NormType::LayerNorm),
        ("qk_gn", attn.qk_gn),
        // llama.cpp knows the tensors, but fails an assertion when it builds the graph
        ("qk_ln", attn.qk_ln),
        ("rope", attn.rope.is_some()),
        ("sliding_window_size", attn.sliding_window_size.is_some()),
        ("softmax_scale", own_scale),
    ];
    match found.into_iter().find(|&(_, set)| set) {
        Some((field, _)) => Err(Error::Unsupported {
            path: "config.json".into(),
            field,
            actual: "set".to_owned(),
            instead: "llama.cpp's MPT has no such option and would compute something else; write a folder of safetensors",
        }),
        None => Ok(()),
    }
}
