//! Writing a GGUF file: header first, then each tensor as it comes.

use std::io::Write;

use super::read::kind_of;
use super::{DEFAULT_ALIGNMENT, MAGIC};
use super::{I32, TEXT, U32};
use crate::config::{Activation, FfnType, MptConfig, NormType};
use crate::dtype::WeightDtype;
use crate::error::{Error, Result};

/// The header of a GGUF file in the making: metadata and tensors in the order they are added.
#[derive(Debug, Default)]
pub struct GgufWriter {
    pairs: Vec<u8>,
    num_pairs: u64,
    tensors: Vec<u8>,
    num_tensors: u64,
    data_len: u64,
}

impl GgufWriter {
    /// Adds an unsigned integer of 32 bits.
    pub fn int(&mut self, key: &str, value: u32) {
        self.pair(key, U32, &value.to_le_bytes());
    }

    /// Adds a number of 32 bits.
    pub fn float(&mut self, key: &str, value: f32) {
        self.pair(key, 6, &value.to_le_bytes());
    }

    /// Adds true or false.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.pair(key, 7, &[value.into()]);
    }

    /// Adds a text.
    pub fn text(&mut self, key: &str, value: &str) {
        self.pair(key, TEXT, &text(value));
    }

    /// Adds an array of texts.
    pub fn texts<S: AsRef<str>>(&mut self, key: &str, values: &[S]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| text(value.as_ref())).collect();
        self.array(key, TEXT, values.len(), &bytes);
    }

    /// Adds an array of integers of 32 bits.
    pub fn ints(&mut self, key: &str, values: &[i32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, I32, values.len(), &bytes);
    }

    /// Adds a tensor; its data must be written in the same order.
    ///
    /// # Panics
    /// When the rows are no whole number of blocks, or GGUF has no such form.
    pub fn tensor(&mut self, name: &str, shape: &[usize], format: WeightDtype) {
        let row = shape.last().and_then(|&len| format.row_bytes(len)).expect("rows of whole blocks");
        let rows: usize = shape[..shape.len() - 1].iter().product();
        self.tensors.extend(text(name));
        self.tensors.extend((shape.len() as u32).to_le_bytes());
        self.tensors.extend(shape.iter().rev().flat_map(|&n| (n as u64).to_le_bytes()));
        self.tensors.extend(kind_of(format).expect("a form that GGUF has").to_le_bytes());
        self.tensors.extend(self.data_len.to_le_bytes());
        self.num_tensors += 1;
        self.data_len += ((rows * row) as u64).next_multiple_of(DEFAULT_ALIGNMENT as u64);
    }

    /// Writes the header up to the first tensor's data.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_header(&self, out: &mut impl Write) -> std::io::Result<()> {
        let counts = [self.num_tensors.to_le_bytes(), self.num_pairs.to_le_bytes()].concat();
        let len = 8 + counts.len() + self.pairs.len() + self.tensors.len();
        for part in [&MAGIC[..], &3u32.to_le_bytes(), &counts, &self.pairs, &self.tensors, padding(len)] {
            out.write_all(part)?;
        }
        Ok(())
    }

    fn pair(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.pairs.extend(text(key));
        self.pairs.extend(kind.to_le_bytes());
        self.pairs.extend(value);
        self.num_pairs += 1;
    }

    fn array(&mut self, key: &str, kind: u32, len: usize, values: &[u8]) {
        let head = [&kind.to_le_bytes()[..], &(len as u64).to_le_bytes()].concat();
        self.pair(key, 9, &[&head, values].concat());
    }
}

/// The zeros that follow `len` bytes of a header or of a tensor.
pub(crate) fn padding(len: usize) -> &'static [u8] {
    &[0; DEFAULT_ALIGNMENT][..len.next_multiple_of(DEFAULT_ALIGNMENT) - len]
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

/// The keys of a configuration, as llama.cpp reads them.
///
/// # Errors
/// [`Error::Unsupported`] naming a key that llama.cpp's MPT does not have, so that its results would differ.
pub(crate) fn metadata_of(config: &MptConfig, name: &str, format: WeightDtype) -> Result<GgufWriter> {
    refuse_unsupported(config)?;
    let attn = &config.attn_config;
    let mut out = GgufWriter::default();
    let size = |value: usize| u32::try_from(value).expect("sizes of a checked configuration fit 32 bits");
    out.text("general.architecture", "mpt");
    out.text("general.type", "model");
    out.text("general.name", name);
    out.int("general.file_type", file_type(format));
    if format.is_quantized() {
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

/// Source: `llama.h`, `enum llama_ftype`.
fn file_type(format: WeightDtype) -> u32 {
    match format {
        WeightDtype::F32 => 0,
        WeightDtype::F16 => 1,
        WeightDtype::Q4_0 => 2,
        WeightDtype::Q8_0 => 7,
        WeightDtype::Q4K => 15,
        WeightDtype::Q5K => 17,
        WeightDtype::Q6K => 18,
        WeightDtype::BF16 => 32,
        WeightDtype::Nf4 => unreachable!("refused by name before"),
    }
}

/// llama.cpp's MPT has layer norms, an ungated GELU and 1/sqrt(head_dim); its keys say nothing of these.
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
        // it knows the tensors, and fails an assertion of its own when it builds the graph
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
