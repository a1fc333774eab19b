//! Comparison of two models on the same rows.

use candle_core::Tensor;
use mpt_core::CausalLm;

use super::tally::{LogitPosition, Tally};
use super::{Comparison, for_each_pair, hidden_alone};
use crate::error::{Error, Result};

/// Number of tokens that one model runs before the other does, so that one pass over its weights serves many tokens.
const GROUP_TOKENS: usize = 4096;

/// Compares the logits of `model` with those of `against` at every position of `rows`, each row alone.
///
/// `predict` says that rows are text, and asks for perplexities. The models take turns of some thousand tokens, so that
/// neither's weights need stay in memory. `advance` is called with the number of tokens that a model has done.
///
/// # Errors
/// [`Error::Vocabulary`] when the models differ in their number of ids, and those of the forward pass.
pub fn compare_models(
    model: &CausalLm,
    against: &CausalLm,
    rows: &[Vec<u32>],
    predict: bool,
    advance: &mut dyn FnMut(usize),
) -> Result<Comparison> {
    expect_vocabulary(model, against.config().vocab_size)?;
    let mut tally = Tally::default();
    let mut first = 0;
    for group in groups(rows) {
        let found = all_hidden(model, group, advance)?;
        let reference = all_hidden(against, group, advance)?;
        for (index, row) in group.iter().enumerate() {
            let pair = ((model, &found[index]), (against, &reference[index]));
            for_each_pair(pair.0, pair.1, |position, found, reference| {
                let next = row.get(position + 1).copied().filter(|_| predict);
                let place = LogitPosition { part: "rows", row: first + index, position };
                tally.add(place, found, reference, next);
            })?;
        }
        first += group.len();
    }
    Ok(tally.comparison())
}

/// Refuses a model whose vocabulary size differs from the reference's.
pub(super) fn expect_vocabulary(model: &CausalLm, expected: usize) -> Result<()> {
    match model.config().vocab_size {
        actual if actual == expected => Ok(()),
        actual => Err(Error::Vocabulary { actual, expected }),
    }
}

fn all_hidden(model: &CausalLm, rows: &[Vec<u32>], advance: &mut dyn FnMut(usize)) -> Result<Vec<Tensor>> {
    let hidden = |row: &Vec<u32>| {
        let hidden = hidden_alone(model, row)?;
        advance(row.len());
        Ok(hidden)
    };
    rows.iter().map(hidden).collect()
}

/// Consecutive rows of at most [`GROUP_TOKENS`] tokens together, or a single longer row.
fn groups(rows: &[Vec<u32>]) -> impl Iterator<Item = &[Vec<u32>]> {
    let mut tokens = 0;
    let mut rest = rows;
    std::iter::from_fn(move || {
        let fits = |row: &&Vec<u32>| {
            tokens += row.len();
            tokens <= GROUP_TOKENS
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        tokens = 0;
        let (group, later) = rest.split_at(count);
        rest = later;
        (!group.is_empty()).then_some(group)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_every_row_once_and_few_tokens() {
        let rows: Vec<Vec<u32>> = [3000, 1000, 97, 5000, 1, 4095].map(|n| vec![0; n]).into();
        let sizes: Vec<usize> = groups(&rows).map(<[_]>::len).collect();
        assert_eq!(sizes, [2, 1, 1, 2]);
        assert_eq!(groups(&[]).count(), 0);
    }
}
