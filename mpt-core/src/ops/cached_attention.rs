//! Causal attention with ALiBi over a cache.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, bail};

use super::attention::{Scores, check_queries, kernel_shape};
use super::host::host_slice;
use crate::cache::LayerCache;
use crate::error::{Error, Result};
use crate::kernels::cpu::attention::decode::decode;
use crate::kernels::cpu::attention::{self as kernel, Heads};

/// Queries of a row up to which reading the cache once is what takes time; more of them are a matrix product.
const FEW: usize = 8;

/// [`attention`](super::attention()) of the queries `q` `[batch, seq, n_heads, head_dim]`, f32, over the keys and values of a
/// cache to which those of the same tokens have been appended. Returns `[batch, seq, n_heads, head_dim]`.
///
/// Up to 8 queries a row read the cache once, and each gives the same bits whatever is beside it.
/// There is no gradient: a backward pass through the result fails.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree or a query would see no key.
pub fn cached_attention(
    q: &Tensor,
    cache: &LayerCache<'_>,
    scores: &Scores,
    first_key: Option<&Arc<[u32]>>,
) -> Result<Tensor> {
    let (batch, seq, n_heads, e) = q.dims4()?;
    let (g, start) = (cache.kv_n_heads(), cache.lens());
    if e != cache.head_dim() || g == 0 || n_heads % g != 0 {
        let expected = format!("[batch, seq, a multiple of {g}, {}]", cache.head_dim());
        let actual = format!("{:?}", q.dims());
        return Err(Error::Shape { op: "attention", argument: "q", actual, expected });
    }
    let first_key = first_key.map(AsRef::as_ref);
    check_queries([batch, seq, n_heads], cache.capacity(), scores, start, first_key)?;
    let q = q.contiguous()?;
    let mut out = vec![0f32; q.elem_count()];
    let shape = kernel_shape([seq, n_heads, g, e], scores, start, first_key);
    let data = host_slice(&q)?;
    if seq <= FEW {
        decode(&shape, &data, cache.cached(), &mut out);
    } else {
        let (row_stride, mut lse) = (n_heads * e, vec![0f32; batch * seq * n_heads]);
        let heads = Heads { data: &data, batch_stride: seq * row_stride, row_stride };
        kernel::forward(&shape, heads, cache.cached(), &mut out, &mut lse);
    }
    drop(data);
    Ok(q.apply_op1(CachedAttentionOp { out: Mutex::new(out) })?)
}

/// Gives `out` and says that it has no gradient: an op may not borrow the cache, so the work is done before.
struct CachedAttentionOp {
    out: Mutex<Vec<f32>>,
}

impl CustomOp1 for CachedAttentionOp {
    fn name(&self) -> &'static str {
        "cached attention"
    }

    fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let out = std::mem::take(&mut *self.out.lock().expect("nothing panics while it is locked"));
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        bail!("attention over a cache has no gradient: train without a cache")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bias::alibi_slopes;
    use crate::cache::KvCache;
    use crate::config::MptConfig;
    use crate::kv_dtype::KvDtype;
    use crate::ops::attention;
    use crate::testing::{assert_close, random};
    use candle_core::Var;
    use proptest::prelude::*;

    /// Queries of rows of unequal lengths over random keys and values.
    #[derive(Debug, Clone)]
    struct Case {
        groups: usize,
        per_group: usize,
        e: usize,
        seq: usize,
        /// Tokens of each row before its queries.
        lens: Vec<usize>,
        cap: Option<f64>,
        seed: u64,
    }

    impl Case {
        fn heads(&self) -> usize {
            self.groups * self.per_group
        }

        fn random(&self, tokens: usize, heads: usize, seed: u64) -> Tensor {
            random(&[self.lens.len(), tokens, heads, self.e], self.seed * 3 + seed)
        }

        fn q(&self) -> Tensor {
            self.random(self.seq, self.heads(), 0)
        }

        fn scores(&self) -> Scores {
            Scores {
                scale: 1.0 / (self.e as f64).sqrt(),
                cap: self.cap,
                products: crate::ops::Products::F32,
                slopes: alibi_slopes(self.heads(), 8.0).into(),
            }
        }

        fn config(&self) -> MptConfig {
            let mut config = MptConfig::mpt(self.heads() * self.e, 1, self.heads(), 8, 8).unwrap();
            config.attn_config.kv_n_heads = self.groups;
            config
        }

        /// Keys and values `[b, t, g, e]` before they are rounded.
        fn keys_and_values(&self) -> [Tensor; 2] {
            let tokens = self.lens.iter().max().unwrap() + self.seq;
            [self.random(tokens, self.groups, 1), self.random(tokens, self.groups, 2)]
        }

        /// A cache of each row's tokens, those of the queries appended but not yet counted.
        fn cache(&self, dtype: KvDtype) -> KvCache {
            filled(&self.config(), dtype, &self.lens, &self.keys_and_values())
        }

        /// One row alone.
        fn row(&self, row: usize) -> (Tensor, [Tensor; 2], Vec<usize>) {
            let of = |x: Tensor| x.narrow(0, row, 1).unwrap();
            (of(self.q()), self.keys_and_values().map(of), vec![self.lens[row]])
        }
    }

    fn filled(config: &MptConfig, dtype: KvDtype, lens: &[usize], [k, v]: &[Tensor; 2]) -> KvCache {
        let mut cache = KvCache::new(config, lens.len(), k.dims()[1] + 5, dtype).unwrap();
        cache.layer(0).append(k, v).unwrap();
        cache.advance(k.dims()[1]);
        for (row, &len) in lens.iter().enumerate() {
            cache.truncate(row, len);
        }
        cache
    }

    fn flat(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn bits(x: &Tensor) -> Vec<u32> {
        flat(x).into_iter().map(f32::to_bits).collect()
    }

    /// Softmax and weighted mean in f64, a query at a time.
    fn oracle(case: &Case, q: &Tensor, [k, v]: &[Tensor; 2], first_key: Option<&Arc<[u32]>>) -> Vec<f64> {
        let (h, e, g, t) = (case.heads(), case.e, case.groups, k.dims()[1]);
        let (q, k, v, scores) = (flat(q), flat(k), flat(v), case.scores());
        let mut out = Vec::new();
        for (query, q) in q.chunks_exact(e).enumerate() {
            let (token, head) = (query / h, query % h);
            let (row, position) = (token / case.seq, case.lens[token / case.seq] + token % case.seq);
            let first = first_key.map_or(0, |first| first[token] as usize);
            let vector =
                |x: &[f32], key: usize| x[((row * t + key) * g + head / case.per_group) * e..][..e].to_vec();
            let score = |key: usize| {
                let products = q.iter().zip(vector(&k, key)).map(|(&x, y)| f64::from(x) * f64::from(y));
                let score = products.sum::<f64>() * scores.scale;
                let score = case.cap.map_or(score, |cap| cap * (score / cap).tanh());
                score - f64::from(scores.slopes[head]) * (position - key) as f64
            };
            let all: Vec<f64> = (first..=position).map(score).collect();
            let top = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = all.iter().map(|score| (score - top).exp()).sum();
            let mut mean = vec![0f64; e];
            for (key, score) in (first..=position).zip(all) {
                for (mean, v) in mean.iter_mut().zip(vector(&v, key)) {
                    *mean += (score - top).exp() / total * f64::from(v);
                }
            }
            out.extend(mean);
        }
        out
    }

    fn largest_difference(found: &Tensor, expected: &[f64]) -> f64 {
        flat(found).iter().zip(expected).map(|(&x, y)| (f64::from(x) - y).abs()).fold(0.0, f64::max)
    }

    fn cases(queries: std::ops::Range<usize>) -> impl Strategy<Value = Case> {
        let widths = prop_oneof![Just(16usize), Just(64), Just(112), Just(128), 16usize..=128];
        let lens = proptest::collection::vec(prop_oneof![0usize..40, 500usize..530, 1010usize..1100], 1..3);
        (1usize..3, 1usize..4, widths, queries, lens, any::<bool>(), 0u64..1000).prop_map(
            |(groups, per_group, e, seq, lens, cap, seed)| Case {
                groups,
                per_group,
                e,
                seq,
                lens,
                cap: cap.then_some(1.5),
                seed,
            },
        )
    }

    /// First keys that hide up to a given share of what each query sees, none hiding the query.
    fn hiding(case: &Case, share: f64) -> Option<Arc<[u32]>> {
        let tokens = 0..case.lens.len() * case.seq;
        let position = |token: usize| case.lens[token / case.seq] + token % case.seq;
        let first = |token: usize| (position(token) as f64 * share * ((token % 3) as f64 / 2.0)) as u32;
        (share > 0.0).then(|| tokens.map(first).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn agrees_with_f64(case in cases(1..20), share in prop_oneof![Just(0.0), 0.0..1.0]) {
            let first_key = hiding(&case, share);
            for dtype in KvDtype::ALL {
                let mut cache = case.cache(dtype);
                let layer = cache.layer(0);
                let found = cached_attention(&case.q(), &layer, &case.scores(), first_key.as_ref()).unwrap();
                // what the cache holds, to the last bit
                let held = layer.tensors(case.seq).unwrap();
                let expected = oracle(&case, &case.q(), &held.into(), first_key.as_ref());
                let error = largest_difference(&found, &expected);
                prop_assert!(error < 2e-5, "{dtype}: {error:e}");
            }
        }

        /// A key off by d in each number moves a score by at most scale |q|_1 d; scores off by s change weights by a
        /// factor of at most e^(2 s).
        #[test]
        fn rounding_stays_within_its_bound(case in cases(1..9)) {
            let exact = case.keys_and_values();
            let expected = oracle(&case, &case.q(), &exact, None);
            let largest = |x: &Tensor| flat(x).iter().fold(0f64, |top, x| top.max(f64::from(x.abs())));
            let [top_key, top_value] = [largest(&exact[0]), largest(&exact[1])];
            let q_sum = flat(&case.q()).chunks_exact(case.e)
                .map(|q| q.iter().map(|x| f64::from(x.abs())).sum::<f64>()).fold(0.0, f64::max);
            for (dtype, share) in [(KvDtype::F32, 0.0), (KvDtype::Bf16, 1.0 / 256.0), (KvDtype::Int8, 1.0001 / 254.0)] {
                let mut cache = case.cache(dtype);
                let found = cached_attention(&case.q(), &cache.layer(0), &case.scores(), None).unwrap();
                let moved = case.scores().scale * q_sum * top_key * share;
                let bound = top_value * (share + (2.0 * moved).exp_m1()) + 2e-5;
                let error = largest_difference(&found, &expected);
                prop_assert!(error < bound, "{dtype}: {error:e}, bound {bound:e}");
            }
        }

        #[test]
        fn an_f32_cache_changes_nothing(case in cases(1..20), share in prop_oneof![Just(0.0), 0.0..1.0]) {
            let first_key = hiding(&case, share);
            let [k, v] = case.keys_and_values();
            let expected = attention([&case.q(), &k, &v], &case.scores(), &case.lens, first_key.as_ref()).unwrap();
            let mut cache = case.cache(KvDtype::F32);
            let found = cached_attention(&case.q(), &cache.layer(0), &case.scores(), first_key.as_ref()).unwrap();
            assert_close(&found, &expected, 1e-5);
        }

        #[test]
        fn bits_depend_on_nothing_beside_a_query(case in cases(1..9)) {
            for dtype in KvDtype::ALL {
                let mut cache = case.cache(dtype);
                let run = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| cached_attention(&case.q(), &cache.layer(0), &case.scores(), None).unwrap())
                };
                let [together, two, three] = [1, 2, 3].map(run);
                prop_assert_eq!(bits(&together), bits(&two));
                prop_assert_eq!(bits(&together), bits(&three));
                for row in 0..case.lens.len() {
                    let (q, kv, lens) = case.row(row);
                    let mut alone = filled(&case.config(), dtype, &lens, &kv);
                    let found = cached_attention(&q, &alone.layer(0), &case.scores(), None).unwrap();
                    prop_assert_eq!(bits(&found), bits(&together.narrow(0, row, 1).unwrap()));
                    for i in 0..case.seq {
                        let (q, of_all) = (q.narrow(1, i, 1).unwrap(), found.narrow(1, i, 1).unwrap());
                        let one = cached_attention(&q, &alone.layer(0), &case.scores(), None).unwrap();
                        prop_assert_eq!(bits(&one), bits(&of_all), "query {}", i);
                        alone.advance(1);
                    }
                }
            }
        }
    }

    fn steep() -> Case {
        Case { groups: 1, per_group: 8, e: 48, seq: 3, lens: vec![1030], cap: None, seed: 3 }
    }

    #[test]
    fn extreme_scores_pick_one_key() {
        let case = steep();
        let [k, v] = case.keys_and_values();
        let k = (k * 1e6).unwrap();
        for dtype in KvDtype::ALL {
            let mut cache = filled(&case.config(), dtype, &case.lens, &[k.clone(), v.clone()]);
            let layer = cache.layer(0);
            let found = cached_attention(&case.q(), &layer, &case.scores(), None).unwrap();
            let expected = oracle(&case, &case.q(), &layer.tensors(case.seq).unwrap().into(), None);
            // scores near 1e6 are multiples of 1/16 in f32, so that two keys this close would share a query otherwise
            assert!(largest_difference(&found, &expected) < 1e-4, "{dtype}");
        }
    }

    #[test]
    fn a_query_that_sees_itself_alone_gives_its_value() {
        let case = steep();
        let first_key: Arc<[u32]> = (1030..1033).collect();
        let mut cache = case.cache(KvDtype::F32);
        let found = cached_attention(&case.q(), &cache.layer(0), &case.scores(), Some(&first_key)).unwrap();
        let value = case.keys_and_values()[1].narrow(1, 1030, 3).unwrap();
        let expected = value.expand((1, 3, 8, 48)).unwrap();
        assert_eq!(bits(&found), bits(&expected));
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        let case = steep();
        let [k, v] = case.keys_and_values();
        let mut values = flat(&v);
        values[7] = f32::NAN; // of key 0, whose weight is nothing for the steepest slope
        let v = Tensor::from_vec(values, v.shape(), v.device()).unwrap();
        for dtype in KvDtype::ALL {
            let mut cache = filled(&case.config(), dtype, &case.lens, &[k.clone(), v.clone()]);
            let found = cached_attention(&case.q(), &cache.layer(0), &case.scores(), None).unwrap();
            for of_head in flat(&found).chunks_exact(case.e) {
                assert!(of_head[7].is_nan(), "{dtype}");
            }
        }
    }

    #[test]
    fn wrong_shapes_and_gradients_are_refused() {
        let case = steep();
        let mut cache = case.cache(KvDtype::F32);
        let narrow = random(&[1, 1, 8, 47], 1);
        let error = cached_attention(&narrow, &cache.layer(0), &case.scores(), None).unwrap_err();
        assert!(error.to_string().contains("`q` is [1, 1, 8, 47]"), "{error}");
        let q = Var::from_tensor(&case.q()).unwrap();
        let out = cached_attention(&q, &cache.layer(0), &case.scores(), None).unwrap();
        let error = out.sum_all().unwrap().backward().unwrap_err();
        assert!(error.to_string().contains("no gradient"), "{error}");
    }
}
