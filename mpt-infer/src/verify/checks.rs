//! What a model must hold on its own: finite numbers, and the same numbers whichever way they are computed.

use mpt_core::{AttnMask, Batch, CausalLm, KvDtype, KvPool, Weights};
use serde::Serialize;

use super::tally::{LogProbs, Place, Tally};
use super::{Comparison, Limits, each_logits, each_pair, hidden_alone};
use crate::error::Result;

/// Rows on which the ways of computing are compared; numbers are checked on all.
const COMPARED_ROWS: usize = 8;
/// Last tokens of a row that are decoded one at a time.
const DECODED: usize = 16;
/// Tokens of a row in the batch of unequal rows.
const BATCHED: usize = 48;

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether it holds.
    pub passed: bool,
    /// What was found.
    pub detail: String,
}

/// What a model's checks found.
#[derive(Debug, Clone, PartialEq)]
pub struct SelfReport {
    /// All checks.
    pub checks: Vec<Check>,
    /// How far the ways of computing are apart, taken together; the reference is each row alone, at once.
    pub comparison: Comparison,
    /// Perplexity on the rows, where tokens to predict were known.
    pub perplexity: Option<f64>,
}

/// The first tensor, in the order of names, that holds a number that is not finite, and the number's index.
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

/// Checks that logits are finite on all `rows`, and that decoding one token at a time and a padded batch give those of
/// each row alone, within `limits`. With `predict`, each token is what the one before
/// should predict. `advance` is told of every token of the rows.
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
    let mut numbers = Numbers::default();
    let mut decoding = Tally::default();
    for (row, ids) in rows.iter().enumerate() {
        numbers.add(model, row, ids, predict)?;
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
        numbers.check(),
        close("one token at a time equals all at once", &decoding, limits),
        close("a batch of unequal rows equals each row alone", &batch, limits),
    ];
    Ok(SelfReport { checks, comparison: both.comparison(), perplexity: numbers.perplexity() })
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

/// Whether logits are numbers, and what they say of the tokens that follow.
#[derive(Debug, Default)]
struct Numbers {
    positions: usize,
    bad: Option<(usize, usize)>,
    loss: f64,
    scored: usize,
}

impl Numbers {
    fn add(&mut self, model: &CausalLm, row: usize, ids: &[u32], predict: bool) -> Result<()> {
        each_logits(model, &hidden_alone(model, ids)?, |position, logits| {
            self.positions += 1;
            if self.bad.is_none() && logits.iter().any(|logit| !logit.is_finite()) {
                self.bad = Some((row, position));
            }
            if let Some(&next) = ids.get(position + 1).filter(|_| predict) {
                self.loss -= LogProbs::new(logits).of(next);
                self.scored += 1;
            }
        })
    }

    fn check(&self) -> Check {
        let detail = match self.bad {
            Some((row, position)) => format!("not finite first in row {row}, position {position}"),
            None => format!("{} positions", self.positions),
        };
        Check { name: "logits are finite", passed: self.bad.is_none(), detail }
    }

    fn perplexity(&self) -> Option<f64> {
        (self.scored > 0).then(|| (self.loss / self.scored as f64).exp())
    }
}

/// The last tokens of a row, one at a time behind a cache of those before, against the whole row at once.
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
        each_pair((model, &next), (model, &at_once), |_, found, reference| {
            tally.add(Place { part: "decoding", row, position }, found, reference, None);
        })?;
    }
    Ok(())
}

/// The beginnings of some rows, of unequal lengths, in one batch padded on the left and in one padded on the right,
/// against each alone.
fn compare_batch(model: &CausalLm, rows: &[Vec<u32>], tally: &mut Tally) -> Result<()> {
    // rows of equal length are cut, each more than the one before
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
            let place = padding(row)..padding(row) + row.len();
            let mut padded = vec![0; longest];
            padded[place.clone()].copy_from_slice(row);
            ids.push(padded);
            mask.extend((0..longest).map(|at| u8::from(place.contains(&at))));
        }
        let hidden = model.hidden(&ids, &AttnMask::padded(&mask, rows.len(), longest)?)?;
        for (number, row) in rows.iter().enumerate() {
            let of_row = hidden.narrow(0, number, 1)?.narrow(1, padding(row), row.len())?.contiguous()?;
            let alone = hidden_alone(model, row)?;
            each_pair((model, &of_row), (model, &alone), |position, found, reference| {
                tally.add(Place { part: "batch", row: number, position }, found, reference, None);
            })?;
        }
    }
    Ok(())
}
