//! Configuration of an MPT model, checked once when it is read.
//!
//! [`MptConfig`] holds every key of llm-foundry's `MPTConfig` that changes what a model computes, at its effective value.
//! `read` parses both spellings of `config.json` and the `[model]` table of run files, `write` emits the spelling that
//! transformers reads, `presets` has the published sizes.

mod presets;
mod read;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use presets::PRESETS;
pub use read::ConfigDefaults;
use read::RawMptConfig;

use crate::params::{Module, ModuleId, ParamId, ParamKind};

/// Configuration of a model. Sizes are counts of elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawMptConfig", into = "Value")]
pub struct MptConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of query heads.
    pub n_heads: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Width of a head; `d_model / n_heads` by default.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn_hidden_size: usize,
    /// Kind of the feed-forward layer.
    pub ffn_type: FfnType,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Trained sequence length. ALiBi and RoPE models extrapolate past it.
    pub max_seq_len: usize,
    /// Number of embedding rows, padding included.
    pub vocab_size: usize,
    /// Whether linears and norms have no bias.
    pub no_bias: bool,
    /// Whether the projections to queries, keys and values have a bias; `!no_bias` by default.
    pub attention_bias: bool,
    /// Kind of the norms.
    pub norm_type: NormType,
    /// Epsilon added to the variance in a norm.
    pub norm_eps: f64,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether positions have a learned embedding `wpe`; false under ALiBi or RoPE.
    pub learned_pos_emb: bool,
    /// Factor on the logits.
    pub logit_scale: Option<f64>,
    /// Cap of the logits: `cap * tanh(logit / cap)`, after the scale.
    pub final_logit_softcapping: Option<f64>,
    /// Factor on the gradient of the embeddings; 1 by default.
    pub embedding_fraction: f64,
    /// Dropout rates, in training only.
    pub dropout: DropoutRates,
    /// Attention options.
    pub attn_config: AttnConfig,
    /// Random initialization of the parameters.
    pub init_config: InitConfig,
}

/// Attention options.
#[derive(Clone, Debug, PartialEq)]
pub struct AttnConfig {
    /// Number of key/value heads: `n_heads` (MHA), 1 (MQA) or a divisor of it (GQA).
    pub kv_n_heads: usize,
    /// Whether one projection `Wqkv` replaces `Wq`, `Wk` and `Wv`.
    pub fused_qkv: bool,
    /// Whether the ALiBi bias is added to the scores.
    pub alibi: bool,
    /// Largest exponent of the ALiBi slopes.
    pub alibi_bias_max: f64,
    /// Rotary position embedding of queries and keys.
    pub rope: Option<RopeConfig>,
    /// Clamp on the absolute value of queries, keys and values.
    pub clip_qkv: Option<f64>,
    /// Whether queries and keys are normed over all heads.
    pub qk_ln: bool,
    /// Whether queries and keys are normed per head.
    pub qk_gn: bool,
    /// Factor on the scores.
    pub softmax_scale: f64,
    /// Cap of the scores: `cap * tanh(score / cap)`, after the scale and before the bias.
    pub logit_softcapping: Option<f64>,
    /// Whether a token attends to its own document of a packed sequence only.
    pub attn_uses_sequence_id: bool,
    /// Number of keys before its own that a query attends to; `None` for all.
    pub sliding_window_size: Option<usize>,
}

/// Rotary position embedding as in llm-foundry's `hf` implementation; its `dail` implementation of type `original` is equal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Scaling for positions past the trained length.
    pub scaling: RopeScaling,
}

/// Scaling of RoPE past the trained length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// Positions are divided by a factor.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// The base grows with the sequence once it is longer than `max_seq_len`.
    Dynamic {
        /// Growth of the base.
        factor: f64,
    },
    /// Low frequencies are divided by a factor, high ones kept, those between interpolated.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Bound of low frequencies: wavelengths above the original length over this.
        low_freq_factor: f64,
        /// Bound of high frequencies: wavelengths below the original length over this.
        high_freq_factor: f64,
        /// Sequence length of the original training.
        original_max_position_embeddings: f64,
    },
}

/// Dropout rates, each the probability of a zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DropoutRates {
    /// Rate on the embeddings, `emb_pdrop`.
    pub embedding: f64,
    /// Rate on the two branches that a block adds to the residual stream, `resid_pdrop`.
    pub residual: f64,
    /// Rate on the attention weights, `attn_pdrop`.
    pub attention: f64,
}

/// Kind of the feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FfnType {
    /// `down(act(up(x)))`.
    Mlp,
    /// `down(act(gate(x)) * up(x))`.
    Glu,
}

/// Activation of the feed-forward layer, under torch's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Exact GELU, `x Phi(x)`: MPT's default.
    #[default]
    Gelu,
    /// GELU with the tanh approximation.
    GeluTanh,
    /// `x sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `x sigmoid(x)`.
    Silu,
}

/// Kind of norm. The low-precision kinds of llm-foundry are the same function in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormType {
    /// Layer norm: mean and standard deviation.
    LayerNorm,
    /// RMS norm: root mean square.
    RmsNorm,
}

/// Random initialization. Norm weights are 1; biases are 0, except those of linears under [`InitScheme::Torch`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InitConfig {
    /// Scheme of the linears, and of the embeddings without `embedding`.
    pub scheme: InitScheme,
    /// Distribution of the embeddings.
    pub embedding: Option<EmbeddingInit>,
    /// Divisor of `out_proj` and `down_proj`; `sqrt(2 * n_layers)` by default.
    pub residual_divisor: Option<f64>,
}

/// Scheme of llm-foundry's `param_init_fns.py`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InitScheme {
    /// `default_`: torch's default of each layer, uniform for linears and standard normal for embeddings.
    Torch,
    /// `baseline_`: normal with standard deviation `init_std`.
    Baseline {
        /// Standard deviation; required when a model is initialized.
        std: Option<f64>,
    },
    /// `kaiming_normal_` and `kaiming_uniform_`.
    Kaiming {
        /// Whether the distribution is uniform, not normal.
        uniform: bool,
        /// Whether the variance follows `fan_out`, not `fan_in`.
        fan_out: bool,
        /// Gain of the nonlinearity.
        gain: f64,
    },
    /// `small_init_`: normal with standard deviation `sqrt(2 / (5 d_model))`.
    Small,
    /// `neox_init_`: `small_init_` with the residual projections divided by `n_layers / sqrt(10)`.
    Neox,
    /// `xavier_normal_` and `xavier_uniform_`.
    Xavier {
        /// Whether the distribution is uniform, not normal.
        uniform: bool,
        /// Factor on the standard deviation; llm-foundry's default of 0 is refused when a model is initialized.
        gain: f64,
    },
}

impl Default for InitScheme {
    /// MPT's default: `kaiming_normal_` with `fan_in` and `relu`.
    fn default() -> Self {
        Self::Kaiming { uniform: false, fan_out: false, gain: std::f64::consts::SQRT_2 }
    }
}

/// Distribution of the embeddings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EmbeddingInit {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between a lower and an upper limit.
    Uniform(f64, f64),
}

impl MptConfig {
    /// Total width of the query heads.
    pub fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Total width of the key heads; that of the value heads is equal.
    pub fn kv_width(&self) -> usize {
        self.attn_config.kv_n_heads * self.head_dim
    }

    /// Whether the model runs sequences longer than `max_seq_len`: without learned positions.
    pub fn can_extrapolate(&self) -> bool {
        !self.learned_pos_emb
    }

    /// Number of parameters; a tied embedding counts once.
    pub fn num_parameters(&self) -> u64 {
        let elements =
            |shape: Vec<usize>| shape.iter().fold(1, |product: u64, &n| product.saturating_mul(n as u64));
        self.parameters().map(|(_, shape)| elements(shape)).fold(0, u64::saturating_add)
    }

    /// Shapes by checkpoint name; a linear is `[out, in]`.
    pub fn parameter_shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.parameters().map(|(id, shape)| (id.to_string(), shape)).collect()
    }

    /// Parameters and their shapes, lazily: a hostile configuration may name more than memory holds.
    pub fn parameters(&self) -> impl Iterator<Item = (ParamId, Vec<usize>)> {
        let d = self.d_model;
        let tables = [
            (Module::Wte, self.vocab_size, true),
            (Module::Wpe, self.max_seq_len, self.learned_pos_emb),
            (Module::LmHead, self.vocab_size, !self.tie_word_embeddings),
        ];
        let tables = tables.into_iter().filter(|&(_, _, exists)| exists);
        let tables = tables.map(move |(module, rows, _)| (ParamId::weight(module), vec![rows, d]));
        let block = self.block_shapes();
        let layer_shapes = move |layer: usize| {
            let with_id = move |(module, shape)| (ModuleId::of_block(layer, module), shape);
            block.clone().into_iter().map(with_id)
        };
        let norm = std::iter::once((ModuleId::of_model(Module::NormF), vec![d]));
        let layers = norm.chain((0..self.n_layers).flat_map(layer_shapes));
        tables.chain(layers.flat_map(|(module, shape)| self.weight_and_bias(module, shape)))
    }

    fn weight_and_bias(
        &self,
        module: ModuleId,
        shape: Vec<usize>,
    ) -> impl Iterator<Item = (ParamId, Vec<usize>)> + use<> {
        let bias = self.has_bias(module.module).then(|| (module.param(ParamKind::Bias), vec![shape[0]]));
        std::iter::once((module.param(ParamKind::Weight), shape)).chain(bias)
    }

    fn block_shapes(&self) -> Vec<(Module, Vec<usize>)> {
        let (d, hidden) = (self.d_model, self.ffn_hidden_size);
        let (q_width, kv_width) = (self.q_width(), self.kv_width());
        let mut shapes = vec![
            (Module::Norm1, vec![d]),
            (Module::OutProj, vec![d, q_width]),
            (Module::Norm2, vec![d]),
            (Module::UpProj, vec![hidden, d]),
            (Module::DownProj, vec![d, hidden]),
        ];
        if self.attn_config.fused_qkv {
            shapes.push((Module::Wqkv, vec![q_width + 2 * kv_width, d]));
        } else {
            let widths = [(Module::Wq, q_width), (Module::Wk, kv_width), (Module::Wv, kv_width)];
            shapes.extend(widths.map(|(module, width)| (module, vec![width, d])));
        }
        if self.ffn_type == FfnType::Glu {
            shapes.push((Module::GateProj, vec![hidden, d]));
        }
        if let Some([q, k]) = self.qk_norm_widths() {
            shapes.extend([(Module::QLn, vec![q]), (Module::KLn, vec![k])]);
        }
        shapes
    }

    /// Widths of the query and key norms: all heads (`qk_ln`), one head (`qk_gn`), or `None`.
    pub(crate) fn qk_norm_widths(&self) -> Option<[usize; 2]> {
        let attn = &self.attn_config;
        match (attn.qk_ln, attn.qk_gn) {
            (true, _) => Some([self.q_width(), self.kv_width()]),
            (_, true) => Some([self.head_dim; 2]),
            _ => None,
        }
    }

    /// Whether a module has a bias: the QKV projections follow `attention_bias`, other linears and layer norms follow
    /// `no_bias`, and RMS norms have none.
    pub(crate) fn has_bias(&self, module: Module) -> bool {
        match module {
            Module::Wqkv | Module::Wq | Module::Wk | Module::Wv => self.attention_bias,
            _ if module.is_norm() => !self.no_bias && self.norm_type == NormType::LayerNorm,
            _ => !self.no_bias,
        }
    }
}
