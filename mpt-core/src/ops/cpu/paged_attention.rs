//! CPU paged attention.

use candle_core::{Device, Tensor};

use crate::batch::Batch;
use crate::cache::{HeadView, KvPool};
use crate::error::Result;
use crate::kernels::cpu::attention::paged::{self, PagedAttentionArgs};
use crate::kernels::cpu::dispatch::{Level, level};
use crate::ops::arguments::ScoreParams;

pub(crate) fn append_kv(pool: &mut KvPool, layer: usize, batch: &Batch, [k, v]: [&Tensor; 2]) -> Result<()> {
    pool.append(layer, batch, k, v)
}

pub(crate) fn paged_attention(
    q: &Tensor,
    pool: &KvPool,
    layer: usize,
    batch: &Batch,
    scores: &ScoreParams,
    window: Option<usize>,
) -> Result<Tensor> {
    attention_at_level(level(), q, pool, (layer, batch), scores, window)
}

/// [`paged_attention`] with the kernels of `level`.
fn attention_at_level(
    level: Level,
    q: &Tensor,
    pool: &KvPool,
    (layer, batch): (usize, &Batch),
    scores: &ScoreParams,
    window: Option<usize>,
) -> Result<Tensor> {
    let q = HeadView::new("attention", "q", q, [Some(batch.len()), None, Some(pool.head_dim())])?;
    let (n_heads, slabs) = (q.heads(), pool.slabs());
    let args = PagedAttentionArgs {
        n_heads,
        pages: pool.layer_pages(layer, &slabs),
        scale: scores.scale as f32,
        cap: scores.cap.map(|cap| cap as f32),
        slopes: &scores.slopes,
        sequences: &pool.block_tables(batch),
        first_key: &pool.first_keys(batch, window)?,
    };
    let mut out = vec![0f32; batch.len() * n_heads * pool.head_dim()];
    paged::forward(level, &args, q.rows(), &mut out);
    Ok(Tensor::from_vec(out, (batch.len(), n_heads, pool.head_dim()), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alibi::alibi_slopes;
    use crate::batch::SeqId;
    use crate::config::MptConfig;
    use crate::kernels::cpu::dispatch::levels;
    use crate::kv_dtype::KvDtype;
    use crate::ops::Precision;
    use crate::testing::{largest, random};
    use proptest::prelude::*;

    /// Shape and options of attention, and the seed of its inputs.
    #[derive(Clone, Debug)]
    struct Case {
        groups: usize,
        per_group: usize,
        e: usize,
        cap: Option<f64>,
        window: Option<usize>,
        /// Tokens of a document, where there are documents.
        document: Option<usize>,
        tokens: usize,
        seed: u64,
    }

    impl Case {
        fn heads(&self) -> usize {
            self.groups * self.per_group
        }

        fn scores(&self) -> ScoreParams {
            ScoreParams {
                scale: 1.0 / (self.e as f64).sqrt(),
                cap: self.cap,
                precision: Precision::F32,
                slopes: alibi_slopes(self.heads(), 8.0).into(),
            }
        }

        fn config(&self) -> MptConfig {
            let mut config = MptConfig::mpt(self.heads() * self.e, 1, self.heads(), 8, 8).unwrap();
            config.attn_config.kv_n_heads = self.groups;
            config
        }

        fn pool(&self, tokens: usize, dtype: KvDtype) -> KvPool {
            KvPool::new(&self.config(), tokens, dtype).unwrap()
        }

        /// Queries, keys and values of sequence `number`, `[tokens, h + 2 g, e]`.
        fn fused(&self, number: u64) -> Tensor {
            random(&[self.tokens, self.heads() + 2 * self.groups, self.e], self.seed * 5 + number)
        }

        fn document_of(&self, token: usize) -> u32 {
            self.document.map_or(0, |len| (token / len) as u32)
        }

        fn first_key(&self, token: usize) -> usize {
            let document = self.document.map_or(0, |len| token / len * len);
            document.max(self.window.map_or(0, |window| token.saturating_sub(window)))
        }
    }

    /// A pool with sequences that are fed from fused tensors.
    struct Session<'a> {
        case: &'a Case,
        level: Level,
        pool: KvPool,
    }

    impl Session<'_> {
        /// Runs the next tokens of sequences, each as far as told; returns their outputs `[new tokens, h e]`, a vector each.
        fn feed(&mut self, parts: &[(SeqId, &Tensor, usize)]) -> Vec<Vec<f32>> {
            let (mut batch, mut new, case) = (Batch::new(), Vec::new(), self.case);
            for &(id, fused, to) in parts {
                let from = self.pool.len(id);
                let documents: Vec<u32> = (from..to).map(|token| case.document_of(token)).collect();
                match case.document {
                    Some(_) => batch.push_documents(id, &vec![0; to - from], &documents).unwrap(),
                    None => batch.push(id, &vec![0; to - from]).unwrap(),
                }
                new.push(fused.narrow(0, from, to - from).unwrap());
            }
            let fused = Tensor::cat(&new, 0).unwrap();
            let (h, g) = (case.heads(), case.groups);
            let part = |from, heads| fused.narrow(1, from, heads).unwrap();
            self.pool.begin(&batch).unwrap();
            self.pool.append(0, &batch, &part(h, g), &part(h + g, g)).unwrap();
            let (scores, q) = (case.scores(), part(0, h));
            let out =
                attention_at_level(self.level, &q, &self.pool, (0, &batch), &scores, case.window).unwrap();
            self.pool.commit(&batch).unwrap();
            let per_sequence = |seq: &crate::batch::BatchSeq| {
                let tokens = seq.token_range();
                flat(&out.narrow(0, tokens.start, tokens.len()).unwrap())
            };
            batch.sequences().iter().map(per_sequence).collect()
        }

        /// Feeds one sequence alone in pieces that `cut` gives for each position.
        fn alone(&mut self, id: SeqId, fused: &Tensor, cut: impl Fn(usize) -> usize) -> Vec<f32> {
            let mut out = Vec::new();
            while self.pool.len(id) < self.case.tokens {
                let at = self.pool.len(id);
                out.extend(self.feed(&[(id, fused, (at + cut(at)).min(self.case.tokens))]).concat());
            }
            out
        }
    }

    fn flat(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    fn run(case: &Case, dtype: KvDtype) -> Session<'_> {
        Session { case, level: level(), pool: case.pool(8 * case.tokens + 1024, dtype) }
    }

    /// All tokens of one sequence at once, in a pool of its own.
    fn whole(case: &Case, dtype: KvDtype, level: Level, number: u64) -> Vec<f32> {
        let mut run = Session { level, ..run(case, dtype) };
        let id = run.pool.add();
        run.feed(&[(id, &case.fused(number), case.tokens)]).concat()
    }

    /// Softmax and weighted mean in f64 of the numbers that the pool holds, a query at a time.
    fn oracle(case: &Case, q: &Tensor, k: &Tensor, v: &Tensor) -> Vec<f64> {
        let (h, e, g) = (case.heads(), case.e, case.groups);
        let (q, k, v, scores) = (flat(q), flat(k), flat(v), case.scores());
        let mut out = Vec::new();
        for (query, q) in q.chunks_exact(e).enumerate() {
            let (token, head) = (query / h, query % h);
            let vector = |x: &[f32], key: usize| x[(key * g + head / case.per_group) * e..][..e].to_vec();
            let score = |key: usize| {
                let products = q.iter().zip(vector(&k, key)).map(|(&x, y)| f64::from(x) * f64::from(y));
                let score = products.sum::<f64>() * scores.scale;
                let score = case.cap.map_or(score, |cap| cap * (score / cap).tanh());
                score - f64::from(scores.slopes[head]) * (token - key) as f64
            };
            let keys = case.first_key(token)..=token;
            let all: Vec<f64> = keys.clone().map(score).collect();
            let top = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = all.iter().map(|score| (score - top).exp()).sum();
            let mut mean = vec![0f64; e];
            for (key, score) in keys.zip(all) {
                for (mean, v) in mean.iter_mut().zip(vector(&v, key)) {
                    *mean += (score - top).exp() / total * f64::from(v);
                }
            }
            out.extend(mean);
        }
        out
    }

    fn largest_difference(found: &[f32], expected: &[f64]) -> f64 {
        assert_eq!(found.len(), expected.len());
        largest(found.iter().zip(expected).map(|(&x, y)| f64::from(x) - y))
    }

    fn cases() -> impl Strategy<Value = Case> {
        let widths = prop_oneof![Just(8usize), Just(16), Just(64), Just(80), 1usize..=40];
        let tokens = prop_oneof![1usize..70, 120usize..260, 500usize..700, 1020usize..1100];
        let window = prop_oneof![2 => Just(None), 1 => (0usize..80).prop_map(Some), 1 => (400usize..700).prop_map(Some)];
        let document = prop_oneof![2 => Just(None), 1 => (1usize..300).prop_map(Some)];
        (1usize..3, 1usize..9, widths, any::<bool>(), window, document, tokens, 0u64..1000).prop_map(
            |(groups, per_group, e, caps, window, document, tokens, seed)| Case {
                groups,
                per_group: if tokens > 300 { per_group.min(3) } else { per_group },
                e,
                cap: caps.then_some(1.5),
                window,
                document,
                tokens,
                seed,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn agrees_with_f64_on_every_level(case in cases()) {
            let fused = case.fused(0);
            let q = fused.narrow(1, 0, case.heads()).unwrap();
            for dtype in KvDtype::ALL {
                for level in levels() {
                    let mut run = Session { level, ..run(&case, dtype) };
                    let id = run.pool.add();
                    let found = run.feed(&[(id, &fused, case.tokens)]).concat();
                    let (k, v) = run.pool.gather(0, id, 0).unwrap(); // what the pool holds, to the last bit
                    let error = largest_difference(&found, &oracle(&case, &q, &k, &v));
                    prop_assert!(error < 2e-5, "{dtype}, {level:?}: {error:e}");
                }
            }
        }

        /// A key off by d in each number moves a score by at most scale |q|_1 d; scores off by s change weights by a
        /// factor of at most e^(2 s).
        #[test]
        fn rounding_stays_within_its_bound(case in cases()) {
            let (fused, h, g) = (case.fused(0), case.heads(), case.groups);
            let [q, k, v] = [(0, h), (h, g), (h + g, g)].map(|(from, heads)| fused.narrow(1, from, heads).unwrap());
            let expected = oracle(&case, &q, &k, &v);
            let sums = |q: &[f32]| q.iter().map(|x| f64::from(x.abs())).sum::<f64>();
            let q_sum = largest(flat(&q).chunks_exact(case.e).map(sums));
            for (dtype, share) in [(KvDtype::F32, 0.0), (KvDtype::Bf16, 1.0 / 256.0), (KvDtype::Int8, 1.0001 / 254.0)] {
                let found = whole(&case, dtype, level(), 0);
                let moved = case.scores().scale * q_sum * largest(flat(&k)) * share;
                let bound = largest(flat(&v)) * (share + f64::exp_m1(2.0 * moved)) + 2e-5;
                let error = largest_difference(&found, &expected);
                prop_assert!(error < bound, "{dtype}: {error:e}, bound {bound:e}");
            }
        }

        #[test]
        fn bits_do_not_depend_on_how_a_prompt_is_cut(case in cases(), piece in 2usize..40, first in 1usize..400) {
            let fused = case.fused(0);
            for (dtype, level) in KvDtype::ALL.into_iter().flat_map(|dtype| levels().map(move |level| (dtype, level))) {
                let expected = bits(&whole(&case, dtype, level, 0));
                let mut run = Session { level, ..run(&case, dtype) };
                let [pieces, then_ones] = [run.pool.add(), run.pool.add()];
                prop_assert_eq!(&bits(&run.alone(pieces, &fused, |_| piece)), &expected, "{} {:?}", dtype, level);
                // one by one behind a first piece, which leaves time for the rest of this test
                let first = first.max(case.tokens.saturating_sub(100));
                let cut = |at| if at == 0 { first } else { 1 };
                prop_assert_eq!(&bits(&run.alone(then_ones, &fused, cut)), &expected, "{} {:?}", dtype, level);
            }
        }

        #[test]
        fn bits_do_not_depend_on_neighbors_pages_forks_or_threads(case in cases(), piece in 1usize..100, at in 0.0..1.0) {
            for dtype in KvDtype::ALL {
                let expected = [0, 1, 2].map(|number| bits(&whole(&case, dtype, level(), number)));
                let mut run = run(&case, dtype);
                fill_with_nan(&mut run);
                // three sequences in pieces of different sizes; the second follows another up to a fork or a cut
                let fused = [0, 1, 2].map(|number| case.fused(number));
                let shared = (case.tokens as f64 * at) as usize;
                let (a, c) = (run.pool.add(), run.pool.add());
                let mut found = [const { Vec::new() }; 3];
                let parent = run.pool.add();
                if shared > 0 {
                    found[1] = run.feed(&[(parent, &fused[1], shared)]).concat();
                }
                let other = Tensor::cat(&[&fused[1].narrow(0, 0, shared).unwrap(), &fused[2].narrow(0, 0, case.tokens - shared).unwrap()], 0).unwrap();
                let b = if piece % 2 == 0 {
                    run.pool.fork(parent, shared).unwrap()
                } else {
                    if case.document.is_none() && shared < case.tokens {
                        run.feed(&[(parent, &other, case.tokens)]);
                    }
                    run.pool.truncate(parent, shared);
                    parent
                };
                let sizes = [piece, 2 * piece + 1, piece / 2 + 1];
                let threads = rayon::ThreadPoolBuilder::new().num_threads(1 + piece % 3).build().unwrap();
                loop {
                    let next = |id: SeqId, size: usize| (run.pool.len(id) + size).min(case.tokens);
                    let parts: Vec<_> = [a, b, c].into_iter().zip(&fused).zip(sizes)
                        .map(|((id, fused), size)| (id, fused, next(id, size)))
                        .filter(|&(id, _, to)| to > run.pool.len(id)).collect();
                    let Some(_) = parts.first() else { break };
                    let outs = threads.install(|| run.feed(&parts));
                    for (&(id, ..), out) in parts.iter().zip(outs) {
                        found[[a, b, c].iter().position(|&x| x == id).unwrap()].extend(out);
                    }
                    if b != parent && shared < case.tokens && run.pool.len(parent) < case.tokens {
                        run.feed(&[(parent, &other, run.pool.len(parent) + 1)]); // writes beside the fork
                    }
                }
                for (found, expected) in found.iter().zip(&expected) {
                    prop_assert_eq!(&bits(found), expected, "{}", dtype);
                }
            }
        }
    }

    /// Leaves pages full of NaN behind.
    fn fill_with_nan(run: &mut Session<'_>) {
        let (id, case) = (run.pool.add(), run.case);
        let tokens = run.pool.total_pages() * run.pool.page_size();
        let mut batch = Batch::new();
        batch.push(id, &vec![0; tokens]).unwrap();
        let nan = Tensor::full(f32::NAN, (tokens, case.groups, case.e), &Device::Cpu).unwrap();
        run.pool.begin(&batch).unwrap();
        run.pool.append(0, &batch, &nan, &nan).unwrap();
        run.pool.commit(&batch).unwrap();
        run.pool.remove(id);
    }

    fn steep() -> Case {
        let (window, document, cap) = (None, None, None);
        Case { groups: 1, per_group: 8, e: 48, cap, window, document, tokens: 1033, seed: 3 }
    }

    #[test]
    fn extreme_scores_pick_one_key() {
        let case = steep();
        let (fused, h) = (case.fused(0), case.heads());
        let [q, k, v] =
            [(0, h), (h, 1), (h + 1, 1)].map(|(from, heads)| fused.narrow(1, from, heads).unwrap());
        let fused = Tensor::cat(&[&q, &(k * 1e6).unwrap(), &v], 1).unwrap();
        for dtype in KvDtype::ALL {
            let mut run = run(&case, dtype);
            let id = run.pool.add();
            let found = run.feed(&[(id, &fused, case.tokens)]).concat();
            let (k, v) = run.pool.gather(0, id, 0).unwrap();
            // scores near 1e6 are multiples of 1/16 in f32, so that two keys this close would share a query otherwise
            let far = found.len() - 3 * h * case.e;
            let expected = oracle(&case, &q, &k, &v);
            assert!(largest_difference(&found[far..], &expected[far..]) < 1e-4, "{dtype}");
        }
    }

    #[test]
    fn a_query_that_sees_itself_alone_gives_its_value() {
        let case = Case { window: Some(0), ..steep() };
        let value = case.fused(0).narrow(1, case.heads() + 1, 1).unwrap();
        let expected = value.expand((case.tokens, case.heads(), case.e)).unwrap().contiguous().unwrap();
        assert_eq!(bits(&whole(&case, KvDtype::F32, level(), 0)), bits(&flat(&expected)));
    }

    #[test]
    fn what_is_not_finite_is_not_hidden_and_reaches_nothing_before_it() {
        let case = steep();
        let (h, e, at) = (case.heads(), case.e, 7);
        let mut numbers = flat(&case.fused(0));
        numbers[(at * (h + 2) + h + 1) * e + 5] = f32::NAN; // in a value whose weight is soon nothing for the steepest slope
        let fused = Tensor::from_vec(numbers, (case.tokens, h + 2, e), &Device::Cpu).unwrap();
        for dtype in KvDtype::ALL {
            let mut run = run(&case, dtype);
            let id = run.pool.add();
            let found = run.feed(&[(id, &fused, case.tokens)]).concat();
            for (query, of_head) in found.chunks_exact(e).enumerate() {
                assert_eq!(of_head[5].is_nan(), query / h >= at, "{dtype}, query {query}");
            }
        }
    }

    #[test]
    fn changed_keys_are_attended_to_as_if_they_were_held() {
        let case = Case { tokens: 150, document: Some(60), ..steep() };
        let fused = case.fused(0);
        let expected = whole(&case, KvDtype::F32, level(), 0);
        let mut run = run(&case, KvDtype::F32);
        let id = run.pool.add();
        run.feed(&[(id, &(&fused * 2.0).unwrap(), 100)]);
        run.pool.truncate(id, 0);
        // keys are held at half their size and doubled at use
        let (h, g) = (case.heads(), case.groups);
        let [q, k, v] =
            [(0, h), (h, g), (h + g, g)].map(|(from, heads)| fused.narrow(1, from, heads).unwrap());
        let halved = Tensor::cat(&[&q, &(k * 0.5).unwrap(), &v], 1).unwrap();
        run.feed(&[(id, &halved, 100)]);
        let mut batch = Batch::new();
        let documents: Vec<u32> = (100..150).map(|token| case.document_of(token)).collect();
        batch.push_documents(id, &[0; 50], &documents).unwrap();
        let new = halved.narrow(0, 100, 50).unwrap();
        let part = |from, heads| new.narrow(1, from, heads).unwrap();
        run.pool.begin(&batch).unwrap();
        run.pool.append(0, &batch, &part(h, g), &part(h + g, g)).unwrap();
        let changed = run.pool.map_keys(0, &batch, |positions, keys| {
            assert_eq!(positions.len(), 150);
            assert_eq!((positions[59], positions[60], positions[149]), (59, 0, 29));
            Ok((keys * 2.0)?)
        });
        let out = paged_attention(&part(0, h), &changed.unwrap(), 0, &batch, &case.scores(), None).unwrap();
        assert_eq!(bits(&flat(&out)), bits(&expected[100 * h * case.e..]));
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let case = steep();
        let mut pool = case.pool(64, KvDtype::F32);
        let id = pool.add();
        let mut batch = Batch::new();
        batch.push(id, &[0]).unwrap();
        let attend = |pool: &KvPool, sizes: [usize; 3], layer, scores: &ScoreParams| {
            crate::ops::paged_attention(&random(&sizes, 1), pool, layer, &batch, scores, None)
                .unwrap_err()
                .to_string()
        };
        let error = attend(&pool, [1, 8, 48], 0, &case.scores());
        assert!(error.contains("`batch` is one that has not begun"), "{error}");
        pool.begin(&batch).unwrap();
        let error = attend(&pool, [1, 8, 47], 0, &case.scores());
        assert!(
            error.contains("`q` is [1, 8, 47]") && error.contains("expected [1, a multiple of"),
            "{error}"
        );
        assert!(attend(&pool, [2, 8, 48], 0, &case.scores()).contains("`q` is [2, 8, 48]"));
        let error = attend(&pool, [1, 7, 48], 0, &case.scores());
        assert_eq!(error, "attention: `slopes` is 8 values, expected 7, one a head");
        assert!(attend(&pool, [1, 8, 48], 1, &case.scores()).contains("`layer` is 1"));
        let two_heads = KvPool::scratch(2, 48);
        assert!(attend(&two_heads, [1, 7, 48], 0, &case.scores()).contains("a multiple of 2 heads"));
    }
}
