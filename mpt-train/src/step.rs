//! Training step: forward, backward, accumulation over microbatches, clipping, update. No files, no logging.

use mpt_core::nn::StepDropout;
use mpt_core::rng::CounterRng;
use mpt_core::{
    Adapter, AttnMask, CausalLm, Gradients, IGNORE_LABEL, MptConfig, ParameterSource, Params, Recompute,
    StepMemory, TrainBatch, WithAdapter, WithPrecision, check_memory,
};

use crate::available_memory::available_memory;
use crate::config::{OptimizerConfig, StepConfig};
use crate::error::{Error, Result};
use crate::optim::Optimizer;

/// Batch of token rows, `[batch, seq]`, with the document of each token.
#[derive(Debug, Clone, Copy)]
pub struct TokenRows<'a> {
    /// Token ids, `[batch * seq]`.
    pub tokens: &'a [u32],
    /// Document number of each token, `[batch * seq]`. Numbers of adjacent documents differ; no more is needed.
    pub documents: &'a [u64],
    /// Tokens per row.
    pub seq: usize,
}

impl<'a> TokenRows<'a> {
    /// Number of rows.
    pub fn batch(&self) -> usize {
        self.tokens.len() / self.seq
    }

    /// Splits the batch into microbatches of at most `rows` rows.
    pub fn chunks(self, rows: usize) -> impl Iterator<Item = TokenRows<'a>> {
        let n = rows * self.seq;
        let pairs = self.tokens.chunks(n).zip(self.documents.chunks(n));
        pairs.map(move |(tokens, documents)| TokenRows { tokens, documents, seq: self.seq })
    }

    /// Labels, `[batch * seq]`: the next token of the row, and [`IGNORE_LABEL`] at its last position.
    pub(crate) fn labels(&self) -> Vec<u32> {
        let rows = self.tokens.chunks(self.seq);
        rows.flat_map(|row| row[1..].iter().copied().chain([IGNORE_LABEL])).collect()
    }

    /// Number of labels that are scored.
    pub(crate) fn num_labels(&self) -> u64 {
        (self.batch() * (self.seq - 1)) as u64
    }

    /// Attention mask: causal, within documents where the configuration says so.
    pub(crate) fn mask(&self, config: &MptConfig) -> Result<AttnMask> {
        if !config.attn_config.attn_uses_sequence_id {
            return Ok(AttnMask::causal(self.batch(), self.seq));
        }
        let segments: Vec<u32> = self.documents.chunks(self.seq).flat_map(numbered).collect();
        Ok(AttnMask::documents(&segments, self.batch(), self.seq)?)
    }

    /// Rows of token ids, `[batch][seq]`.
    pub(crate) fn rows(&self) -> Vec<&'a [u32]> {
        self.tokens.chunks(self.seq).collect()
    }
}

/// Document numbers of a row, renumbered from 0.
fn numbered(documents: &[u64]) -> impl Iterator<Item = u32> {
    let mut number = 0;
    (0..documents.len()).map(move |at| {
        number += u32::from(at > 0 && documents[at] != documents[at - 1]);
        number
    })
}

/// Figures of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepOutcome {
    /// Mean loss before the update, in nats per token.
    pub loss: f64,
    /// L2 norm of the mean gradient, before clipping.
    pub grad_norm: f64,
}

/// Model in training, with its optimizer.
#[derive(Debug)]
pub struct Trainer {
    /// Trained parameters: all of the model, or those of an adapter.
    params: Params,
    /// Whether `params` are an adapter's, and the model's own are frozen.
    is_adapter: bool,
    model: CausalLm,
    optimizer: Optimizer,
    config: StepConfig,
    /// Bytes for activations and scratch.
    memory: u64,
}

impl Trainer {
    /// Trainer of all parameters of a model of `config`.
    ///
    /// # Errors
    /// When a parameter is missing or has another shape, or the optimizer's state does not fit into memory.
    pub fn new(
        config: &MptConfig,
        params: Params,
        optimizer: &OptimizerConfig,
        step: &StepConfig,
    ) -> Result<Self> {
        let model = CausalLm::new(config, &WithPrecision { source: &params, precision: step.precision })?;
        Self::of(params, false, model, optimizer, step)
    }

    /// Trainer of `adapter` alone on a frozen `base` of any dtype: LoRA, and QLoRA on a base in NF4. Frozen weights get no
    /// gradients; activations are kept only where a gradient passes through.
    ///
    /// # Errors
    /// When a parameter is missing or has another shape, or the optimizer's state does not fit into memory.
    pub fn with_adapter(
        config: &MptConfig,
        base: &dyn ParameterSource,
        adapter: &Adapter,
        optimizer: &OptimizerConfig,
        step: &StepConfig,
    ) -> Result<Self> {
        let source = &WithAdapter { base, adapter };
        let model = CausalLm::new(config, &WithPrecision { source, precision: step.precision })?;
        Self::of(Params::from_adapter(adapter), true, model, optimizer, step)
    }

    fn of(
        params: Params,
        is_adapter: bool,
        model: CausalLm,
        optimizer: &OptimizerConfig,
        step: &StepConfig,
    ) -> Result<Self> {
        let gradients = 4 * params.num_elements() as u64;
        check_memory((optimizer.moments().len() as u64 + 1).saturating_mul(gradients))?;
        let optimizer = Optimizer::new(optimizer, &params)?;
        // gradients are allocated later, and a tenth stays free for the rest of the system
        let memory = available_memory().map_or(u64::MAX, |free| (free / 10 * 9).saturating_sub(gradients));
        Ok(Self { params, is_adapter, model, optimizer, config: step.clone(), memory })
    }

    /// Empty sink for the gradients of the trained parameters.
    fn gradient_sink(&self) -> Gradients {
        match self.is_adapter {
            true => Gradients::for_params(self.params.iter().filter_map(|(name, _)| name.parse().ok())),
            false => Gradients::default(),
        }
    }

    /// Trained parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The model, which shares the parameters.
    pub fn model(&self) -> &CausalLm {
        &self.model
    }

    /// The optimizer.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The optimizer, to load its state.
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    /// Runs one step over a batch, in microbatches of `microbatch_size` rows. `multiplier` is the schedule's; `step` counts
    /// from 1.
    ///
    /// Gradients are summed over tokens and divided by the number of tokens of the batch, so that the split into
    /// microbatches changes only the order of sums. Clipping is torch's `clip_grad_norm_`.
    ///
    /// # Errors
    /// [`Error::NotFinite`], which leaves the parameters unchanged, and those of the forward pass.
    pub fn step(&mut self, batch: TokenRows<'_>, multiplier: f64, step: u64) -> Result<StepOutcome> {
        let mut gradients = self.gradient_sink();
        let (mut loss_sum, mut first_row) = (0.0, 0);
        for microbatch in batch.chunks(self.config.microbatch_size()) {
            loss_sum += self.loss_and_gradients(microbatch, first_row, step, &mut gradients)?;
            first_row += microbatch.batch() as u64;
        }
        let tokens = batch.num_labels() as f64;
        let outcome = StepOutcome { loss: loss_sum / tokens, grad_norm: gradients.norm()? / tokens };
        check_finite(&outcome, step)?;
        let clip = self.config.clip().map_or(1.0, |limit| (limit / (outcome.grad_norm + 1e-6)).min(1.0));
        self.optimizer.step(&self.params, &gradients, multiplier, (clip / tokens) as f32, step)?;
        Ok(outcome)
    }
}

impl Trainer {
    /// Summed loss of a microbatch, whose first row is row `first_row` of the batch. Adds its gradients to `gradients`.
    fn loss_and_gradients(
        &self,
        microbatch: TokenRows<'_>,
        first_row: u64,
        step: u64,
        gradients: &mut Gradients,
    ) -> Result<f64> {
        let seed = CounterRng::named(self.config.seed, "dropout").at(step);
        let (mask, labels) = (microbatch.mask(self.model.config())?, microbatch.labels());
        let dropout = Some(StepDropout { seed, first_row });
        let batch = TrainBatch { tokens: &microbatch.rows(), mask: &mask, labels: &labels, dropout };
        let recompute = match self.config.activation_checkpointing {
            Some(true) => Recompute::All,
            Some(false) => Recompute::None,
            None => {
                Recompute::fitting(self.model.config(), [microbatch.batch(), microbatch.seq], self.memory)
            }
        };
        let memory =
            StepMemory::estimate(self.model.config(), [microbatch.batch(), microbatch.seq], 0, recompute);
        check_memory(memory.activations.saturating_add(memory.workspace))?;
        Ok(self.model.loss_and_gradients(&batch, recompute, gradients)?)
    }
}

/// Refuses a loss or gradient norm that is infinite or NaN.
fn check_finite(outcome: &StepOutcome, step: u64) -> Result<()> {
    let found = [("loss", outcome.loss), ("gradient norm", outcome.grad_norm)];
    match found.into_iter().find(|(_, value)| !value.is_finite()) {
        Some((what, value)) => Err(Error::NotFinite { step, what: what.to_owned(), value, checkpoint: None }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpt_core::testing::tiny_model;

    /// Dropout takes part: steps of one seed and number agree to the bit, whatever else has run, and others do not.
    #[test]
    fn dropout_is_drawn_from_seed_and_step() {
        let outcome = |rate: f64, step: u64| {
            let (mut config, params) = tiny_model(1);
            config.dropout.residual = rate;
            let optimizer = OptimizerConfig::Lion { lr: 1e-3, betas: [0.9, 0.99], weight_decay: 0.0 };
            let run: StepConfig = toml::from_str("steps = 1\nbatch_size = 2\nmicrobatch_size = 1").unwrap();
            let mut trainer = Trainer::new(&config, params, &optimizer, &run).unwrap();
            let tokens: Vec<u32> = (0..24).map(|i| i * 7 % 50).collect();
            trainer.step(TokenRows { tokens: &tokens, documents: &[0; 24], seq: 12 }, 1.0, step).unwrap()
        };
        assert_eq!(outcome(0.2, 3), outcome(0.2, 3));
        assert_ne!(outcome(0.2, 3), outcome(0.2, 4));
        assert_ne!(outcome(0.2, 3), outcome(0.0, 3));
    }

    /// One step in each precision: they differ, since bf16 rounds factors to 8 bits, and by no more than that explains.
    #[test]
    fn precision_reaches_the_products() {
        let outcome = |precision: &str| {
            let (config, params) = tiny_model(1);
            let optimizer = OptimizerConfig::Lion { lr: 1e-3, betas: [0.9, 0.99], weight_decay: 0.0 };
            let step = format!("steps = 1\nbatch_size = 2\nprecision = \"{precision}\"");
            let step: StepConfig = toml::from_str(&step).unwrap();
            let mut trainer = Trainer::new(&config, params, &optimizer, &step).unwrap();
            let tokens: Vec<u32> = (0..24).map(|i| i * 7 % 50).collect();
            trainer.step(TokenRows { tokens: &tokens, documents: &[0; 24], seq: 12 }, 1.0, 1).unwrap()
        };
        let (full, half) = (outcome("f32"), outcome("bf16"));
        for (full, half) in [(full.loss, half.loss), (full.grad_norm, half.grad_norm)] {
            assert!(full != half && (full - half).abs() < 0.02 * full, "{full} {half}");
        }
    }
}
