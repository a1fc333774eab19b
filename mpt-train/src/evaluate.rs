//! Evaluation: mean loss of a model on held-out text.

use mpt_core::{CausalLm, Recompute, StepMemory, check_memory};
use mpt_data::TokenBatch;
use serde::Serialize;

use crate::error::Result;
use crate::step::TokenRows;

/// Result of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EvalReport {
    /// Mean loss, in nats per token.
    pub loss: f64,
    /// Number of tokens scored.
    pub tokens: u64,
}

impl EvalReport {
    /// `exp(loss)`.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

/// Running sum of losses.
#[derive(Debug, Default)]
struct LossSum {
    loss: f64,
    tokens: u64,
}

impl LossSum {
    fn add(&mut self, model: &CausalLm, rows: TokenRows<'_>) -> Result<()> {
        let hidden = model.hidden(&rows.rows(), &rows.mask(model.config())?)?;
        self.loss += model.loss_sum(&hidden, &rows.labels())?;
        self.tokens += rows.num_labels();
        Ok(())
    }

    fn report(self) -> EvalReport {
        EvalReport { loss: self.loss / self.tokens as f64, tokens: self.tokens }
    }
}

/// Scores every token of every row but the first, which has no context. Without batches the loss is NaN.
///
/// # Errors
/// Those of the data and of the forward pass.
pub fn evaluate(
    model: &CausalLm,
    batches: &mut dyn Iterator<Item = mpt_data::Result<TokenBatch>>,
) -> Result<EvalReport> {
    let mut sums = LossSum::default();
    for batch in batches {
        let batch = batch?;
        sums.add(model, TokenRows { tokens: &batch.tokens, documents: &batch.documents, seq: batch.seq })?;
    }
    Ok(sums.report())
}

/// Scores one sequence of ids in windows of `seq` tokens. Windows overlap by one token, so that each token but the first
/// of all is scored once. With fewer than two ids the loss is NaN.
///
/// # Errors
/// Those of the forward pass, and too little memory for a window.
///
/// # Panics
/// When `seq` is below 2.
pub fn evaluate_ids(model: &CausalLm, ids: &[u32], seq: usize) -> Result<EvalReport> {
    assert!(seq >= 2, "a window of {seq} tokens has nothing to predict");
    let seq = seq.min(ids.len().max(2));
    check_memory(StepMemory::estimate(model.config(), [1, seq], 0, Recompute::All).workspace)?;
    let mut sums = LossSum::default();
    let documents = vec![0; seq];
    let mut start = 0;
    while start + 1 < ids.len() {
        let tokens = &ids[start..ids.len().min(start + seq)];
        sums.add(model, TokenRows { tokens, documents: &documents[..tokens.len()], seq: tokens.len() })?;
        start += tokens.len() - 1;
    }
    Ok(sums.report())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpt_core::testing::tiny_model;

    #[test]
    fn every_token_but_the_first_is_scored_once() {
        let (config, params) = tiny_model(1);
        let model = CausalLm::new(&config, &params).unwrap();
        let ids: Vec<u32> = (0..41).map(|i| i % 50).collect();
        for seq in [2, 7, 16, 41, 100] {
            let report = evaluate_ids(&model, &ids, seq).unwrap();
            assert_eq!(report.tokens, 40, "windows of {seq}");
            assert!((3.0..6.0).contains(&report.loss), "an untrained model knows nothing: {}", report.loss);
        }
        assert!(evaluate_ids(&model, &ids[..1], 8).unwrap().loss.is_nan());
    }
}
