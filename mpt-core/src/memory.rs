//! Memory estimate of a training step from shapes, and a check that the system grants an allocation.
//!
//! Saved activations are f32, except the clip mask of `clip_qkv` at one bit a value. A block saves, per token:
//!
//! | saved | values |
//! |---|---|
//! | its input, and the residual stream between attention and feed-forward layer | `2 d_model` |
//! | queries, keys and values as projected | `q_width + 2 kv_width` |
//! | the output of attention and its softmax denominators | `q_width + n_heads` |
//! | the results of the first projections of the feed-forward layer | `ffn_hidden_size`, twice with a gate |
//!
//! Norms, activations and rotations are recomputed from these. A recomputed block saves its input only.

use memmap2::MmapMut;

use crate::config::{FfnType, MptConfig};
use crate::error::{Error, Result};
use crate::training::Recompute;

const F32: u64 = size_of::<f32>() as u64;

/// Memory of a training step in bytes, by use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepMemory {
    /// Parameters, frozen ones included.
    pub parameters: u64,
    /// Gradients.
    pub gradients: u64,
    /// Optimizer state.
    pub optimizer: u64,
    /// Activations saved by the forward pass for the backward pass.
    pub activations: u64,
    /// Temporary buffers of one block or of the head, whichever is larger.
    pub workspace: u64,
}

impl StepMemory {
    /// Estimate for microbatches of `[rows, seq]` tokens and an optimizer with `moments` f32 values per parameter.
    pub fn estimate(
        config: &MptConfig,
        [rows, seq]: [usize; 2],
        moments: usize,
        recompute: Recompute,
    ) -> Self {
        let tokens = (rows as u64).saturating_mul(seq as u64);
        let parameters = F32.saturating_mul(config.num_parameters());
        Self {
            parameters,
            gradients: parameters,
            optimizer: parameters.saturating_mul(moments as u64),
            activations: activation_bytes(config, tokens, recompute),
            workspace: workspace_bytes(config, tokens),
        }
    }

    /// Sum of all uses.
    pub fn total(&self) -> u64 {
        [self.parameters, self.gradients, self.optimizer, self.activations, self.workspace]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

impl Recompute {
    /// Least recomputation with which the activations and workspace of a microbatch `[rows, seq]` fit into `budget` bytes;
    /// [`Recompute::All`] when none fits.
    pub fn fitting(config: &MptConfig, [rows, seq]: [usize; 2], budget: u64) -> Self {
        let tokens = (rows as u64).saturating_mul(seq as u64);
        let fits = |recompute| {
            activation_bytes(config, tokens, recompute).saturating_add(workspace_bytes(config, tokens))
                <= budget
        };
        let choices = (1..config.n_layers).rev().map(Self::AllButLast);
        let mut choices = std::iter::once(Self::None).chain(choices);
        choices.find(|&choice| fits(choice)).unwrap_or(Self::All)
    }
}

/// Checks that the system grants `bytes` of memory: allocates and frees them. A later allocation failure would abort the
/// process.
///
/// # Errors
/// [`Error::Memory`] naming the bytes.
pub fn check_memory(bytes: u64) -> Result<()> {
    let size = usize::try_from(bytes).unwrap_or(usize::MAX);
    match MmapMut::map_anon(size.max(1)) {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::Memory { bytes: size, source }),
    }
}

/// Saved activations of all blocks, in bytes.
fn activation_bytes(config: &MptConfig, tokens: u64, recompute: Recompute) -> u64 {
    let layer_bytes = |layer| match recompute.applies_to(layer, config.n_layers) {
        true => F32 * config.d_model as u64,
        false => block_activation_bytes(config),
    };
    (0..config.n_layers).map(layer_bytes).sum::<u64>().saturating_mul(tokens)
}

/// Saved activations of a block per token, in bytes.
fn block_activation_bytes(config: &MptConfig) -> u64 {
    let qkv = config.q_width() + 2 * config.kv_width();
    let clipped = if config.attn_config.clip_qkv.is_some() { qkv.div_ceil(8) } else { 0 };
    let numbers = 2 * config.d_model + qkv + config.q_width() + config.n_heads + ffn_width(config);
    F32 * numbers as u64 + clipped as u64
}

/// Saved values of the feed-forward layer per token.
fn ffn_width(config: &MptConfig) -> usize {
    config.ffn_hidden_size * if config.ffn_type == FfnType::Glu { 2 } else { 1 }
}

/// Workspace in bytes: the larger of a block's backward pass (its activations and the gradients of the widest of them) and
/// the head's (a chunk of logits and the output projection packed for both directions).
fn workspace_bytes(config: &MptConfig, tokens: u64) -> u64 {
    let widest = ffn_width(config).max(config.q_width() + 2 * config.kv_width());
    let block = block_activation_bytes(config) + 3 * F32 * (widest + config.d_model) as u64;
    let packed = 2 * 6 * (config.vocab_size * config.d_model) as u64; // at most three bf16 parts a value
    let chunk = (1u64 << 24).max(8 * config.vocab_size as u64) * F32;
    block.saturating_mul(tokens).max(packed + chunk + 3 * F32 * config.d_model as u64 * tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> MptConfig {
        MptConfig::preset("mpt-125m").expect("a preset")
    }

    #[test]
    fn a_step_of_a_small_model_is_the_sum_of_its_uses() {
        let memory = StepMemory::estimate(&config(), [4, 512], 2, Recompute::None);
        let parameters = 4 * config().num_parameters();
        assert_eq!((memory.parameters, memory.optimizer), (parameters, 2 * parameters));
        // 12 blocks x 2048 tokens x (10 x 768 + 12) numbers
        assert_eq!(memory.activations, 12 * 2048 * (10 * 768 + 12) * 4);
        assert!(memory.total() > 2_500_000_000 && memory.total() < 4_000_000_000, "{memory:?}");
    }

    #[test]
    fn a_refused_allocation_names_the_bytes() {
        check_memory(0).expect("nothing");
        check_memory(1 << 20).expect("a little");
        for bytes in [1 << 60, u64::MAX] {
            let error = check_memory(bytes).expect_err("more than there is").to_string();
            assert!(error.contains(&format!("{bytes} bytes of memory cannot be had")), "{error}");
        }
    }

    #[test]
    fn recomputation_is_the_least_that_fits() {
        let config = config();
        let needs = |recompute| activation_bytes(&config, 2048, recompute) + workspace_bytes(&config, 2048);
        let chosen = |budget| Recompute::fitting(&config, [4, 512], budget);
        assert_eq!(chosen(u64::MAX), Recompute::None);
        assert_eq!(chosen(needs(Recompute::None)), Recompute::None);
        assert_eq!(chosen(needs(Recompute::None) - 1), Recompute::AllButLast(11));
        assert_eq!(chosen(needs(Recompute::AllButLast(5))), Recompute::AllButLast(5));
        assert_eq!(chosen(0), Recompute::All);
    }
}
