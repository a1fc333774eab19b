//! Self-checks of a model: finite logits, and the same logits by decoding, in a padded batch and in one pass.

use mpt_core::{AttnMask, Batch, CausalLm, KvDtype, KvPool, Weights};
use serde::Serialize;

use super::tally::{LogProbs, LogitPosition, Tally};
use super::{Comparison, Limits, for_each_logits, for_each_pair, hidden_alone};
use crate::error::Result;

/// Number of rows whose decoding and batch are compared. All rows are checked for finite logits.
const COMPARED_ROWS: usize = 8;
/// Number of last tokens of a row that are decoded one at a time.
const DECODED: usize = 16;
/// Maximum length of a row in the padded batch.
const BATCHED: usize = 48;

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether it holds.
    pub passed: bool,
    /// Figures of the check, in words.
    pub detail: String,
}

/// Result of all self-checks of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct SelfReport {
    /// All checks.
    pub checks: Vec<Check>,
    /// Comparison of decoding and of the padded batch with one pass over each row.
    pub comparison: Comparison,
    /// Perplexity on the rows, where they are text.
    pub perplexity: Option<f64>,
}

/// First tensor by name that holds an infinite or NaN value, and the index of that value.
///
/// # Errors
/// Those of the weights.
pub fn first_non_finite(weights: &Weights) -> Result<Option<(String, usize)>> {
    for (name, shape) in weights.config().parameter_shapes() {
        if let Some(index) = weights.tensor(&name, Some(&shape))?.first_non_finite() {
            return Ok(Some((name, index)));
        }
    }
    Ok(None)
}

/// Checks that the logits of all `rows` are finite, and that decoding token by token and padded batches reproduce those
/// of one pass over each row, within `limits`. `predict` says that rows are text, whose tokens are scored. `advance` is
/// called with the number of tokens done.
///
/// # Errors
/// Those of the forward pass.
pub fn self_check(
    model: &CausalLm,
    rows: &[Vec<u32>],
    limits: &Limits,
    predict: bool,
    advance: &mut dyn FnMut(usize),
) -> Result<SelfReport> {
    let mut finiteness = Finiteness::default();
    let mut decoding = Tally::default();
    for (row, ids) in rows.iter().enumerate() {
        finiteness.add(model, row, ids, predict)?;
        if row < COMPARED_ROWS {
            compare_decoding(model, row, ids, &mut decoding)?;
        }
        advance(ids.len());
    }
    let mut batch = Tally::default();
    compare_batch(model, rows, &mut batch)?;
    let mut both = decoding.clone();
    both.merge(&batch);
    let checks = vec![
        finiteness.check(),
        close("one token at a time equals all at once", &decoding, limits),
        close("a batch of unequal rows equals each row alone", &batch, limits),
    ];
    Ok(SelfReport { checks, comparison: both.comparison(), perplexity: finiteness.perplexity() })
}

fn close(name: &'static str, tally: &Tally, limits: &Limits) -> Check {
    let comparison = tally.comparison();
    let broken = limits.broken(&comparison);
    let Comparison { relative_error, worst, positions, .. } = comparison;
    let place = worst.map(|place| format!(", largest in row {}, position {}", place.row, place.position));
    let detail = match broken.is_empty() {
        true => format!("relative error {relative_error:.1e} at {positions} positions"),
        false => broken.join("; "),
    };
    Check { name, passed: broken.is_empty(), detail: detail + &place.unwrap_or_default() }
}

/// Finiteness of logits, and the loss of the tokens that follow.
#[derive(Debug, Default)]
struct Finiteness {
    positions: usize,
    first_non_finite: Option<(usize, usize)>,
    loss: f64,
    scored: usize,
}

impl Finiteness {
    fn add(&mut self, model: &CausalLm, row: usize, ids: &[u32], predict: bool) -> Result<()> {
        for_each_logits(model, &hidden_alone(model, ids)?, |position, logits| {
            self.positions += 1;
            if self.first_non_finite.is_none() && logits.iter().any(|logit| !logit.is_finite()) {
                self.first_non_finite = Some((row, position));
            }
            if let Some(&next) = ids.get(position + 1).filter(|_| predict) {
                self.loss -= LogProbs::new(logits).of(next);
                self.scored += 1;
            }
        })
    }

    fn check(&self) -> Check {
        let detail = match self.first_non_finite {
            Some((row, position)) => format!("not finite first in row {row}, position {position}"),
            None => format!("{} positions", self.positions),
        };
        Check { name: "logits are finite", passed: self.first_non_finite.is_none(), detail }
    }

    fn perplexity(&self) -> Option<f64> {
        (self.scored > 0).then(|| (self.loss / self.scored as f64).exp())
    }
}

/// Compares decoding of a row's last tokens, over a cache of those before, with one pass over the row.
fn compare_decoding(model: &CausalLm, row: usize, ids: &[u32], tally: &mut Tally) -> Result<()> {
    let n = ids.len();
    let whole = hidden_alone(model, ids)?;
    let mut pool = KvPool::new(model.config(), n, KvDtype::F32)?;
    let sequence = pool.add();
    let first = n.saturating_sub(DECODED);
    if first > 0 {
        model.forward(&Batch::single(sequence, &ids[..first])?, &mut pool)?;
    }
    for position in first..n {
        let next =
            model.forward(&Batch::single(sequence, &ids[position..=position])?, &mut pool)?.unsqueeze(0)?;
        let at_once = whole.narrow(1, position, 1)?.contiguous()?;
        for_each_pair((model, &next), (model, &at_once), |_, found, reference| {
            tally.add(LogitPosition { part: "decoding", row, position }, found, reference, None);
        })?;
    }
    Ok(())
}

/// Compares batches of prefixes of unequal lengths, padded on the left and on the right, with each prefix alone.
fn compare_batch(model: &CausalLm, rows: &[Vec<u32>], tally: &mut Tally) -> Result<()> {
    // each prefix is shorter than the one before, so that rows of equal length get unequal ones
    let cut = |(index, row): (usize, &Vec<u32>)| {
        let length = row.len().min(BATCHED);
        row[..length.saturating_sub(index).max(1)].to_vec()
    };
    let rows: Vec<Vec<u32>> = rows.iter().take(COMPARED_ROWS).enumerate().map(cut).collect();
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    for left in [true, false] {
        let padding = |row: &Vec<u32>| if left { longest - row.len() } else { 0 };
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for row in &rows {
            let span = padding(row)..padding(row) + row.len();
            let mut padded = vec![0; longest];
            padded[span.clone()].copy_from_slice(row);
            ids.push(padded);
            mask.extend((0..longest).map(|at| u8::from(span.contains(&at))));
        }
        let hidden = model.hidden(&ids, &AttnMask::padded(&mask, rows.len(), longest)?)?;
        for (number, row) in rows.iter().enumerate() {
            let of_row = hidden.narrow(0, number, 1)?.narrow(1, padding(row), row.len())?.contiguous()?;
            let alone = hidden_alone(model, row)?;
            for_each_pair((model, &of_row), (model, &alone), |position, found, reference| {
                tally.add(LogitPosition { part: "batch", row: number, position }, found, reference, None);
            })?;
        }
    }
    Ok(())
}
