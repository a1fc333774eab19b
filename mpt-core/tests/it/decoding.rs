//! Tokens run at once, one by one or three by three give the same logits, for every option, alone or in a batch.
//!
//! The property: the logits behind n tokens are those of the last token of a prefill of n tokens, whatever the pieces in
//! which the tokens came. It holds without condition, but for RoPE's `dynamic` scaling: there the angles of a whole
//! sequence change with its length once it is longer than `max_seq_len`, so the hidden state of an earlier token depends
//! on the length at which it was computed. A cache keeps the states of that time. So beyond `max_seq_len` the property
//! is one of models with one layer, whose keys depend on no earlier state, and of the last token of each piece.
//!
//! Tolerance: sums over keys run in another order where a cache holds some of them; 2e-5 of the range of the logits.

use candle_core::Tensor;
use mpt_core::{AttnMask, CausalLm, KvCache, KvDtype, RopeScaling};

use crate::compare::{flat, relative_error};
use crate::options::{Case, cases, ids};

/// Tokens of each row's prompt.
const PROMPTS: [usize; 3] = [6, 4, 1];

fn logits(model: &CausalLm, rows: &[&[u32]], mask: &AttnMask, cache: Option<&mut KvCache>) -> Tensor {
    let hidden = model.hidden(rows, mask, cache).unwrap_or_else(|error| panic!("{error}"));
    model.logits(&hidden).expect("logits")
}

fn at(logits: &Tensor, row: usize, token: usize) -> Vec<f32> {
    flat(&logits.narrow(0, row, 1).and_then(|x| x.narrow(1, token, 1)).expect("a token of a row"))
}

/// For each count of tokens of `row` from 1, the logits behind them, by a prefill of exactly those.
fn prefills(model: &CausalLm, row: &[u32]) -> Vec<Vec<f32>> {
    let last = |n: usize| at(&logits(model, &[&row[..n]], &AttnMask::causal(1, n), None), 0, n - 1);
    (1..=row.len()).map(last).collect()
}

/// Which rows of `seq` tokens hold `lens` real ones, from the left.
fn right_padded(lens: &[usize], seq: usize) -> AttnMask {
    let real: Vec<u8> = lens.iter().flat_map(|&len| (0..seq).map(move |at| u8::from(at < len))).collect();
    AttnMask::padded(&real, lens.len(), seq).expect("padding on the right")
}

/// `row`, or 0 beyond its end.
fn cut(row: &[u32], start: usize, n: usize) -> Vec<u32> {
    (start..start + n).map(|at| row.get(at).copied().unwrap_or(0)).collect()
}

struct Decoding<'a> {
    case: &'a Case,
    model: CausalLm,
    rows: Vec<Vec<u32>>,
    expected: Vec<Vec<Vec<f32>>>,
    last_only: bool,
}

impl<'a> Decoding<'a> {
    fn new(case: &'a Case, longest: usize) -> Self {
        let model = case.model();
        let rows: Vec<Vec<u32>> =
            [longest, longest - 3, longest - 5].into_iter().zip(1..).map(|(n, seed)| ids(n, seed)).collect();
        let expected = rows.iter().map(|row| prefills(&model, row)).collect();
        Self { case, model, rows, expected, last_only: is_dynamic(case) }
    }

    fn expect(&self, row: usize, tokens: usize, found: &[f32], how: &str) {
        let error = relative_error(found, &self.expected[row][tokens - 1]);
        assert!(error < 2e-5, "{}: row {row} behind {tokens} tokens {how}: {error:e}", self.case.name);
    }

    /// A cache of the prompts, padded on the right, run together and cut back.
    fn prompted(&self) -> KvCache {
        let mut cache = KvCache::new(&self.case.config, PROMPTS.len(), 32, KvDtype::F32).expect("room");
        let padded: Vec<Vec<u32>> =
            self.rows.iter().zip(PROMPTS).map(|(row, n)| cut(&row[..n], 0, PROMPTS[0])).collect();
        let padded: Vec<&[u32]> = padded.iter().map(Vec::as_slice).collect();
        let mask = right_padded(&PROMPTS, PROMPTS[0]);
        let logits = logits(&self.model, &padded, &mask, Some(&mut cache));
        for (row, n) in PROMPTS.into_iter().enumerate() {
            self.expect(row, n, &at(&logits, row, n - 1), "of a padded prompt");
            cache.truncate(row, n);
        }
        cache
    }

    /// Goes on from `cache` in pieces of up to `n` tokens a row, until every row ends.
    fn continue_by(&self, n: usize, mut cache: KvCache) {
        let left = |cache: &KvCache| -> Vec<usize> {
            self.rows.iter().enumerate().map(|(row, tokens)| (tokens.len() - cache.len(row)).min(n)).collect()
        };
        while left(&cache).iter().any(|&left| left > 0) {
            let (lens, starts) = (left(&cache), [0, 1, 2].map(|row| cache.len(row)));
            let pieces: Vec<Vec<u32>> =
                self.rows.iter().zip(starts).map(|(row, start)| cut(row, start, n)).collect();
            let pieces: Vec<&[u32]> = pieces.iter().map(Vec::as_slice).collect();
            let logits = logits(&self.model, &pieces, &right_padded(&lens, n), Some(&mut cache));
            for (row, (len, start)) in lens.into_iter().zip(starts).enumerate() {
                let first = if self.last_only { len.saturating_sub(1) } else { 0 };
                for token in first..len {
                    let how = format!("in pieces of {n}");
                    self.expect(row, start + token + 1, &at(&logits, row, token), &how);
                }
                cache.truncate(row, start + len);
            }
        }
    }

    /// All rows at once without a cache, padded on either side.
    fn padded(&self) {
        let longest = self.rows[0].len();
        for left in [false, true] {
            let shift = |row: &[u32]| if left { longest - row.len() } else { 0 };
            let (mut real, mut padded) = (Vec::new(), Vec::new());
            for row in &self.rows {
                let holds = |at: usize| (shift(row)..shift(row) + row.len()).contains(&at);
                real.extend((0..longest).map(|at| u8::from(holds(at))));
                padded.push([vec![0; shift(row)], cut(row, 0, longest - shift(row))].concat());
            }
            let padded: Vec<&[u32]> = padded.iter().map(Vec::as_slice).collect();
            let mask = AttnMask::padded(&real, self.rows.len(), longest).expect("padding at an end");
            let logits = logits(&self.model, &padded, &mask, None);
            for (row, tokens) in self.rows.iter().enumerate() {
                let last = at(&logits, row, shift(tokens) + tokens.len() - 1);
                self.expect(row, tokens.len(), &last, if left { "padded left" } else { "padded right" });
            }
        }
    }
}

fn is_dynamic(case: &Case) -> bool {
    case.config.attn_config.rope.is_some_and(|rope| matches!(rope.scaling, RopeScaling::Dynamic { .. }))
}

fn expect_one_result(case: &Case, longest: usize) {
    let decoding = Decoding::new(case, longest);
    decoding.padded();
    decoding.continue_by(1, decoding.prompted());
    decoding.continue_by(3, decoding.prompted());
    let empty = KvCache::new(&case.config, 3, 32, KvDtype::F32).expect("room");
    decoding.continue_by(3, empty);
}

#[test]
fn logits_do_not_depend_on_the_pieces_in_which_tokens_come() {
    for case in cases() {
        if is_dynamic(&case) {
            expect_one_result(&case, case.config.max_seq_len);
            let one_layer = mpt_core::MptConfig { n_layers: 1, ..case.config.clone() };
            let one_layer = Case::new(&format!("{} in one layer", case.name), one_layer, 5);
            expect_one_result(&one_layer, one_layer.longest());
        } else {
            expect_one_result(&case, case.longest());
        }
    }
}

#[test]
fn a_cache_refuses_padding_on_the_left() {
    let cases = cases();
    let model = cases[0].model();
    let mut cache = KvCache::new(model.config(), 1, 8, KvDtype::F32).expect("room");
    let mask = AttnMask::padded(&[0, 1], 1, 2).expect("padding on the left");
    let message = model.hidden(&[[1, 2]], &mask, Some(&mut cache)).unwrap_err().to_string();
    assert!(message.contains("`mask`") && message.contains("on the right"), "{message}");
}
