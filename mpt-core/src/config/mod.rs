//! The configuration of an MPT model, checked once where it is read.
//!
//! [`MptConfig`] holds every key of llm-foundry's `MPTConfig` that changes what a model computes, at its effective value.
//! `read` takes both spellings of `config.json` and the `[model]` table of run files, `write` gives the spelling that
//! transformers reads, `presets` names the published sizes.

mod presets;
mod read;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use presets::PRESETS;
pub use read::Defaults;
use read::RawMptConfig;

use crate::params::{Module, ModuleId, ParamId, ParamKind};

/// What an MPT model is. Sizes are counts of elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawMptConfig", into = "Value")]
pub struct MptConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Width of one head; `d_model / n_heads` unless the configuration says otherwise.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn_hidden_size: usize,
    /// The feed-forward layer's form.
    pub ffn_type: FfnType,
    /// The feed-forward layer's activation.
    pub activation: Activation,
    /// Positions the model was trained with. ALiBi and RoPE models run past it.
    pub max_seq_len: usize,
    /// Rows of the embedding, padding included.
    pub vocab_size: usize,
    /// Whether the linears and norms have no bias.
    pub no_bias: bool,
    /// Whether the projections to queries, keys and values have a bias; the opposite of `no_bias` unless said otherwise.
    pub attention_bias: bool,
    /// The norm of every block and of the output.
    pub norm_type: NormType,
    /// Added to the variance in a norm.
    pub norm_eps: f64,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether positions have a learned embedding `wpe`; never beside ALiBi or RoPE.
    pub learned_pos_emb: bool,
    /// Factor on the logits.
    pub logit_scale: Option<f64>,
    /// Cap of the logits: `cap * tanh(logit / cap)`, after the scale.
    pub final_logit_softcapping: Option<f64>,
    /// Factor on the gradient of the embeddings; 1 for the whole gradient.
    pub embedding_fraction: f64,
    /// Rates of dropout, in training only.
    pub dropout: DropoutRates,
    /// Attention.
    pub attn_config: AttnConfig,
    /// How parameters are drawn for training from scratch.
    pub init_config: InitConfig,
}

/// The attention part of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct AttnConfig {
    /// Key/value heads: `n_heads` (multi-head), 1 (multi-query) or a divisor (grouped).
    pub kv_n_heads: usize,
    /// Whether queries, keys and values come from one projection `Wqkv` or from `Wq`, `Wk` and `Wv`.
    pub fused_qkv: bool,
    /// Whether scores carry the ALiBi bias.
    pub alibi: bool,
    /// Largest exponent of the ALiBi slopes.
    pub alibi_bias_max: f64,
    /// Rotary position embedding of queries and keys.
    pub rope: Option<RopeConfig>,
    /// Bound on the absolute value of queries, keys and values.
    pub clip_qkv: Option<f64>,
    /// Whether a norm over all of q and one over all of k follow the projection.
    pub qk_ln: bool,
    /// Whether a norm over each head of q and k follows the projection.
    pub qk_gn: bool,
    /// Factor on the scores.
    pub softmax_scale: f64,
    /// Cap of the scores: `cap * tanh(score / cap)`, after the scale and before the bias.
    pub logit_softcapping: Option<f64>,
    /// Whether a token sees only its own document of a packed sequence.
    pub attn_uses_sequence_id: bool,
    /// How many keys before its own a query sees; all where absent.
    pub sliding_window_size: Option<usize>,
}

/// Rotary position embedding: llm-foundry's `hf` form, which its `dail` form of type `original` equals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// How positions beyond the trained length are treated.
    pub scaling: RopeScaling,
}

/// What RoPE does to reach past the trained length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Nothing.
    None,
    /// Positions are divided by a factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// The base grows with the sequence once it is longer than `max_seq_len`.
    Dynamic {
        /// How fast it grows.
        factor: f64,
    },
    /// Low frequencies are divided by a factor, high ones kept, those between interpolated.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths beyond the original length by this divisor are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths below the original length by this divisor are high frequencies.
        high_freq_factor: f64,
        /// The length the model was first trained with.
        original_max_position_embeddings: f64,
    },
}

/// Rates of dropout, each the probability of a zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DropoutRates {
    /// `emb_pdrop`: of the embeddings.
    pub embedding: f64,
    /// `resid_pdrop`: of what a block adds to the residual stream.
    pub residual: f64,
    /// `attn_pdrop`: of attention's probabilities.
    pub attention: f64,
}

/// Form of the feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FfnType {
    /// down(act(up(x)))
    Mlp,
    /// down(act(gate(x)) * up(x))
    Glu,
}

/// Activation of the feed-forward layer, under torch's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// The exact GELU, x Phi(x): MPT's own.
    #[default]
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// x sigmoid(1.702 x)
    QuickGelu,
    /// max(x, 0)
    Relu,
    /// x sigmoid(x)
    Silu,
}

/// Kind of norm. The low-precision kinds of llm-foundry are the same function in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormType {
    /// Mean and deviation.
    LayerNorm,
    /// Root of the mean square.
    RmsNorm,
}

/// How parameters are drawn. Norms are 1 and biases 0 under every scheme.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InitConfig {
    /// The scheme of the linears, and of the embeddings unless they have their own.
    pub scheme: InitScheme,
    /// The embeddings' own distribution.
    pub embedding: Option<EmbeddingInit>,
    /// Divisor of `out_proj` and `down_proj`, instead of `sqrt(2 * n_layers)`.
    pub residual_divisor: Option<f64>,
}

/// A scheme of llm-foundry's `param_init_fns.py`, by its name there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InitScheme {
    /// `default_`: torch's own for each layer, uniform for linears and standard normal for embeddings.
    Torch,
    /// `baseline_`: normal of one deviation, `init_std`.
    Baseline {
        /// The deviation; a model cannot be drawn without it.
        std: Option<f64>,
    },
    /// `kaiming_normal_` and `kaiming_uniform_`.
    Kaiming {
        /// Whether uniform instead of normal.
        uniform: bool,
        /// Whether the outputs count instead of the inputs.
        fan_out: bool,
        /// The gain of the nonlinearity.
        gain: f64,
    },
    /// `small_init_`: normal, sqrt(2 / (5 d_model)).
    Small,
    /// `neox_init_`: the same, with the residual projections divided by n_layers / sqrt(10).
    Neox,
    /// `xavier_normal_` and `xavier_uniform_`.
    Xavier {
        /// Whether uniform instead of normal.
        uniform: bool,
        /// Factor on the deviation; llm-foundry's default of 0 draws zeros and is refused when a model is drawn.
        gain: f64,
    },
}

impl Default for InitScheme {
    /// MPT's own: `kaiming_normal_` with `fan_in` and `relu`.
    fn default() -> Self {
        Self::Kaiming { uniform: false, fan_out: false, gain: std::f64::consts::SQRT_2 }
    }
}

/// Distribution of the embeddings where it is not that of the linears.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EmbeddingInit {
    /// Normal with this deviation.
    Normal(f64),
    /// Uniform between these limits.
    Uniform(f64, f64),
}

impl MptConfig {
    /// Width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key heads together, and of all value heads.
    pub fn kv_width(&self) -> usize {
        self.attn_config.kv_n_heads * self.head_dim
    }

    /// Whether sequences longer than `max_seq_len` can be run.
    pub fn reaches_beyond_max_seq_len(&self) -> bool {
        !self.learned_pos_emb
    }

    /// Parameters of the model, the embedding counted once where it is tied.
    pub fn num_parameters(&self) -> u64 {
        let elements =
            |shape: Vec<usize>| shape.iter().fold(1, |product: u64, &n| product.saturating_mul(n as u64));
        self.parameters().map(|(_, shape)| elements(shape)).fold(0, u64::saturating_add)
    }

    /// Every parameter's name in a checkpoint and its shape, a linear as `[out, in]`.
    pub fn parameter_shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.parameters().map(|(id, shape)| (id.to_string(), shape)).collect()
    }

    /// The same one by one, for a configuration that may name more of them than there is memory for.
    pub fn parameters(&self) -> impl Iterator<Item = (ParamId, Vec<usize>)> {
        let d = self.d_model;
        let tables = [
            (Module::Wte, self.vocab_size, true),
            (Module::Wpe, self.max_seq_len, self.learned_pos_emb),
            (Module::LmHead, self.vocab_size, !self.tie_word_embeddings),
        ];
        let tables = tables.into_iter().filter(|&(_, _, is_there)| is_there);
        let tables = tables.map(move |(module, rows, _)| (ParamId::weight(module), vec![rows, d]));
        let block = self.block_shapes();
        let of_block = move |layer: usize| {
            let placed = move |(module, shape)| (ModuleId::of_block(layer, module), shape);
            block.clone().into_iter().map(placed)
        };
        let norm = std::iter::once((ModuleId::of_model(Module::NormF), vec![d]));
        let layers = norm.chain((0..self.n_layers).flat_map(of_block));
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

    /// Widths of the norms of queries and keys, where there are any: all heads (`qk_ln`) or one head (`qk_gn`).
    pub(crate) fn qk_norm_widths(&self) -> Option<[usize; 2]> {
        let attn = &self.attn_config;
        match (attn.qk_ln, attn.qk_gn) {
            (true, _) => Some([self.q_width(), self.kv_width()]),
            (_, true) => Some([self.head_dim; 2]),
            _ => None,
        }
    }

    /// Whether a module has a bias: linears where `no_bias` is false, the attention's inputs where `attention_bias` says
    /// so, and norms as linears, except that root-mean-square norms never have one.
    pub(crate) fn has_bias(&self, module: Module) -> bool {
        match module {
            Module::Wqkv | Module::Wq | Module::Wk | Module::Wv => self.attention_bias,
            _ if module.is_norm() => !self.no_bias && self.norm_type == NormType::LayerNorm,
            _ => !self.no_bias,
        }
    }
}
