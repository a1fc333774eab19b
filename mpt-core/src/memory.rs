//! Memory of a training step, from the shapes alone: what is kept, in which precision, and what is computed again.
//!
//! Everything kept is f32, but for what `clip_qkv` clipped, one bit a value. A block keeps, for each token:
//!
//! | kept | values |
//! |---|---|
//! | its input, and the residual stream between attention and feed-forward layer | `2 d_model` |
//! | queries, keys and values as projected | `q_width + 2 kv_width` |
//! | the output of attention and its softmax denominators | `q_width + n_heads` |
//! | the results of the first projections of the feed-forward layer | `ffn_hidden_size`, twice with a gate |
//!
//! Norms, activations and rotations are computed again from these. A block that is recomputed keeps its input alone.

use memmap2::MmapMut;

use crate::config::{FfnType, MptConfig};
use crate::error::{Error, Result};
use crate::training::Recompute;

const F32: u64 = size_of::<f32>() as u64;

/// Bytes of a training step, by what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepMemory {
    /// Parameters, frozen ones too.
    pub parameters: u64,
    /// Gradients of what is trained.
    pub gradients: u64,
    /// Moments of the optimizer.
    pub optimizer: u64,
    /// What blocks keep between the passes.
    pub kept: u64,
    /// Intermediates of one block, or of the head where that is more.
    pub working: u64,
}

impl StepMemory {
    /// Memory of a step on microbatches of `rows` sequences of `seq` tokens, with `moments` numbers a trained parameter.
    pub fn of(config: &MptConfig, [rows, seq]: [usize; 2], moments: usize, recompute: Recompute) -> Self {
        let tokens = (rows as u64).saturating_mul(seq as u64);
        let parameters = F32.saturating_mul(config.num_parameters());
        Self {
            parameters,
            gradients: parameters,
            optimizer: parameters.saturating_mul(moments as u64),
            kept: kept(config, tokens, recompute),
            working: working(config, tokens),
        }
    }

    /// All of it together.
    pub fn total(&self) -> u64 {
        [self.parameters, self.gradients, self.optimizer, self.kept, self.working]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

impl Recompute {
    /// The least recomputing with which a microbatch of `rows` sequences of `seq` tokens keeps and works with at most
    /// `budget` bytes; [`Recompute::All`] where even that is more.
    pub fn fitting(config: &MptConfig, [rows, seq]: [usize; 2], budget: u64) -> Self {
        let tokens = (rows as u64).saturating_mul(seq as u64);
        let fits =
            |recompute| kept(config, tokens, recompute).saturating_add(working(config, tokens)) <= budget;
        let choices = (1..config.n_layers).rev().map(Self::AllButLast);
        let mut choices = std::iter::once(Self::None).chain(choices);
        choices.find(|&choice| fits(choice)).unwrap_or(Self::All)
    }
}

/// Asks the system for so much memory and gives it back at once, so that what it refuses is an error and not an abort.
///
/// # Errors
/// [`Error::Memory`] naming the bytes.
pub fn expect_memory(bytes: u64) -> Result<()> {
    let size = usize::try_from(bytes).unwrap_or(usize::MAX);
    match MmapMut::map_anon(size.max(1)) {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::Memory { bytes: size, source }),
    }
}

/// Bytes that all blocks keep.
fn kept(config: &MptConfig, tokens: u64, recompute: Recompute) -> u64 {
    let of_layer = |layer| match recompute.covers(layer, config.n_layers) {
        true => F32 * config.d_model as u64,
        false => kept_of_block(config),
    };
    (0..config.n_layers).map(of_layer).sum::<u64>().saturating_mul(tokens)
}

/// Bytes that a block keeps for each token.
fn kept_of_block(config: &MptConfig) -> u64 {
    let qkv = config.q_width() + 2 * config.kv_width();
    let clipped = if config.attn_config.clip_qkv.is_some() { qkv.div_ceil(8) } else { 0 };
    let numbers = 2 * config.d_model + qkv + config.q_width() + config.n_heads + ffn_width(config);
    F32 * numbers as u64 + clipped as u64
}

/// Numbers that the feed-forward layer keeps for each token.
fn ffn_width(config: &MptConfig) -> usize {
    config.ffn_hidden_size * if config.ffn_type == FfnType::Glu { 2 } else { 1 }
}

/// Bytes of intermediates: those of a block going backward, which holds what it kept, and gradients of the widest of it;
/// or a chunk of logits beside the output projection in the kernels' order, both ways.
fn working(config: &MptConfig, tokens: u64) -> u64 {
    let widest = ffn_width(config).max(config.q_width() + 2 * config.kv_width());
    let of_block = kept_of_block(config) + 3 * F32 * (widest + config.d_model) as u64;
    let packed = 2 * 6 * (config.vocab_size * config.d_model) as u64; // at most three bf16 parts a value
    let chunk = (1u64 << 24).max(8 * config.vocab_size as u64) * F32;
    of_block.saturating_mul(tokens).max(packed + chunk + 3 * F32 * config.d_model as u64 * tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> MptConfig {
        MptConfig::preset("mpt-125m").expect("a preset")
    }

    #[test]
    fn a_step_of_a_small_model_takes_what_its_parts_do() {
        let memory = StepMemory::of(&config(), [4, 512], 2, Recompute::None);
        let parameters = 4 * config().num_parameters();
        assert_eq!((memory.parameters, memory.optimizer), (parameters, 2 * parameters));
        // 12 blocks x 2048 tokens x (10 x 768 + 12) numbers
        assert_eq!(memory.kept, 12 * 2048 * (10 * 768 + 12) * 4);
        assert!(memory.total() > 2_500_000_000 && memory.total() < 4_000_000_000, "{memory:?}");
    }

    #[test]
    fn what_the_system_refuses_is_an_error_with_the_bytes() {
        expect_memory(0).expect("nothing");
        expect_memory(1 << 20).expect("a little");
        for bytes in [1 << 60, u64::MAX] {
            let error = expect_memory(bytes).expect_err("more than there is").to_string();
            assert!(error.contains(&format!("{bytes} bytes of memory cannot be had")), "{error}");
        }
    }

    #[test]
    fn as_much_is_kept_as_fits() {
        let config = config();
        let needs = |recompute| kept(&config, 2048, recompute) + working(&config, 2048);
        let chosen = |budget| Recompute::fitting(&config, [4, 512], budget);
        assert_eq!(chosen(u64::MAX), Recompute::None);
        assert_eq!(chosen(needs(Recompute::None)), Recompute::None);
        assert_eq!(chosen(needs(Recompute::None) - 1), Recompute::AllButLast(11));
        assert_eq!(chosen(needs(Recompute::AllButLast(5))), Recompute::AllButLast(5));
        assert_eq!(chosen(0), Recompute::All);
    }
}
