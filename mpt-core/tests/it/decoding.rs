//! Prefill, chunked prefill and decoding give the same logits, for every option, alone or in a batch.
//!
//! The property: the logits after n tokens are those of the last token of a prefill of n tokens, for any chunks. RoPE's
//! `dynamic` scaling is the exception: beyond `max_seq_len` the angles of all tokens depend on the sequence length, and the
//! cache keeps hidden states computed at shorter lengths. There the property holds for models with one layer, whose keys
//! depend on no earlier state, and for the last token of each chunk.
//!
//! Over a cache it holds to the bit (`invariance`). Without a cache the sums over keys run in another order, and the
//! tolerance is 2e-5 of the range of the logits.

use candle_core::Tensor;
use mpt_core::config::RopeScaling;
use mpt_core::{AttnMask, Batch, CausalLm, KvDtype, KvPool, SeqId};

use crate::compare::{flat, relative_error};
use crate::options::{Case, cases, ids};

/// Prompt length of each row.
const PROMPTS: [usize; 3] = [6, 4, 1];

fn logits(model: &CausalLm, rows: &[&[u32]], mask: &AttnMask) -> Tensor {
    let hidden = model.hidden(rows, mask).unwrap_or_else(|error| panic!("{error}"));
    model.logits(&hidden).expect("logits")
}

fn at(logits: &Tensor, row: usize, token: usize) -> Vec<f32> {
    flat(&logits.narrow(0, row, 1).and_then(|x| x.narrow(1, token, 1)).expect("a token of a row"))
}

/// Logits after each prefix of `row`, by a prefill of that prefix.
fn prefills(model: &CausalLm, row: &[u32]) -> Vec<Vec<f32>> {
    let last = |n: usize| at(&logits(model, &[&row[..n]], &AttnMask::causal(1, n)), 0, n - 1);
    (1..=row.len()).map(last).collect()
}

struct Decoding<'a> {
    case: &'a Case,
    model: CausalLm,
    rows: Vec<Vec<u32>>,
    expected: Vec<Vec<Vec<f32>>>,
    last_only: bool,
}

/// Pool with one sequence per row.
struct Cache {
    pool: KvPool,
    sequences: Vec<SeqId>,
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

    fn empty(&self) -> Cache {
        let mut pool = KvPool::new(&self.case.config, 512, KvDtype::F32).expect("room");
        let sequences = self.rows.iter().map(|_| pool.add()).collect();
        Cache { pool, sequences }
    }

    /// Runs the next `lens` tokens of each row in one ragged batch.
    fn run(&self, cache: &mut Cache, lens: &[usize], how: &str) {
        let starts: Vec<usize> = cache.sequences.iter().map(|&id| cache.pool.len(id)).collect();
        let mut batch = Batch::new();
        for ((row, &id), (&start, &len)) in
            self.rows.iter().zip(&cache.sequences).zip(starts.iter().zip(lens))
        {
            if len > 0 {
                batch.push(id, &row[start..start + len]).expect("new tokens");
            }
        }
        let hidden = self.model.forward(&batch, &mut cache.pool).unwrap_or_else(|error| panic!("{error}"));
        let logits = self.model.logits(&hidden).expect("logits");
        let rows = lens.iter().zip(&starts).enumerate().filter(|&(_, (&len, _))| len > 0);
        for ((row, (&len, start)), seq) in rows.zip(batch.sequences()) {
            let first = if self.last_only { len - 1 } else { 0 };
            for token in first..len {
                let found = logits.narrow(0, seq.token_range().start + token, 1).expect("a token");
                self.expect(row, start + token + 1, &flat(&found), how);
            }
        }
    }

    /// Cache after the prompts, run together.
    fn prompted(&self) -> Cache {
        let mut cache = self.empty();
        self.run(&mut cache, &PROMPTS, "of a prompt among others");
        cache
    }

    /// Continues from `cache` in chunks of up to `n` tokens per row, to the end of all rows.
    fn continue_by(&self, n: usize, mut cache: Cache) {
        loop {
            let left = |(row, &id): (&Vec<u32>, &SeqId)| (row.len() - cache.pool.len(id)).min(n);
            let lens: Vec<usize> = self.rows.iter().zip(&cache.sequences).map(left).collect();
            if lens.iter().all(|&len| len == 0) {
                break;
            }
            self.run(&mut cache, &lens, &format!("in pieces of {n}"));
        }
    }

    /// Runs all rows at once without a cache, padded on either side.
    fn padded(&self) {
        let longest = self.rows[0].len();
        for left in [false, true] {
            let shift = |row: &[u32]| if left { longest - row.len() } else { 0 };
            let (mut real, mut padded) = (Vec::new(), Vec::new());
            for row in &self.rows {
                let holds = |at: usize| (shift(row)..shift(row) + row.len()).contains(&at);
                real.extend((0..longest).map(|at| u8::from(holds(at))));
                let behind = vec![0; longest - shift(row) - row.len()];
                padded.push([vec![0; shift(row)], row.clone(), behind].concat());
            }
            let padded: Vec<&[u32]> = padded.iter().map(Vec::as_slice).collect();
            let mask = AttnMask::padded(&real, self.rows.len(), longest).expect("padding at an end");
            let logits = logits(&self.model, &padded, &mask);
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
    decoding.continue_by(3, decoding.empty());
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

/// Packed documents, in chunks over a cache and at once without one.
#[test]
fn packed_documents_go_on_over_a_cache() {
    for case in cases() {
        if is_dynamic(&case) {
            continue; // its angles depend on the length of the whole row, which grows
        }
        let seq = case.longest();
        let (tokens, documents): (Vec<u32>, Vec<u32>) =
            (ids(seq, 4), (0..seq as u32).map(|at| at / 7).collect());
        let model = case.model();
        let mask = AttnMask::documents(&documents, 1, seq).expect("contiguous documents");
        let whole = logits(&model, &[&tokens], &mask);
        let mut pool = KvPool::new(&case.config, 256, KvDtype::F32).expect("room");
        let sequence = pool.add();
        for from in (0..seq).step_by(5) {
            let piece = from..seq.min(from + 5);
            let mut batch = Batch::new();
            batch
                .push_documents(sequence, &tokens[piece.clone()], &documents[piece.clone()])
                .expect("tokens");
            let found = model.logits(&model.forward(&batch, &mut pool).expect("a pass")).expect("logits");
            let expected = whole.narrow(1, from, piece.len()).expect("the same tokens");
            let error = relative_error(&flat(&found), &flat(&expected));
            assert!(error < 2e-5, "{}: tokens {piece:?}: {error:e}", case.name);
        }
    }
}
