//! Paged attention at the width of `mpt-1b`: one new token over 8,192 in 24 layers (`decode`), and a whole prompt in 2 layers
//! (`prefill`).
//!
//! For `decode` compare bytes of keys and values a second with `plain_read`, which reads as many bytes as the f32 pool has. For
//! `prefill` compare operations a second with the peak.

use candle_core::Tensor;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use mpt_core::ops::{ScoreParams, append_kv, paged_attention};
use mpt_core::testing::random;
use mpt_core::{Batch, KvDtype, KvPool, MptConfig, alibi_slopes};
use rayon::prelude::*;

const TOKENS: usize = 8192;

fn main() {
    divan::main();
}

/// `mpt-1b` with `layers` layers and heads of `head_dim` elements.
fn config(head_dim: usize, layers: usize) -> MptConfig {
    let width = MptConfig::preset("mpt-1b").expect("a preset").d_model;
    MptConfig::mpt(width, layers, width / head_dim, 128, TOKENS).expect("possible sizes")
}

fn scores(config: &MptConfig) -> ScoreParams {
    ScoreParams {
        scale: config.attn_config.softmax_scale,
        cap: None,
        slopes: alibi_slopes(config.n_heads, 8.0).into(),
        precision: mpt_core::Precision::F32,
    }
}

/// Pool with one sequence of `tokens` tokens, the last `new` of which are a batch that has begun.
fn filled(config: &MptConfig, tokens: usize, new: usize, dtype: KvDtype) -> (KvPool, Batch) {
    let mut pool = KvPool::new(config, tokens, dtype).expect("room");
    let id = pool.add();
    let keys_values = [1, 2].map(|seed| random(&[tokens, config.n_heads, config.head_dim], seed));
    let mut last = Batch::new();
    for (from, n) in [(0, tokens - new), (tokens - new, new)].into_iter().filter(|&(_, n)| n > 0) {
        let mut batch = Batch::new();
        batch.push(id, &vec![0; n]).expect("tokens");
        pool.begin(&batch).expect("room");
        let [keys, values] = [0, 1].map(|half: usize| keys_values[half].narrow(0, from, n).expect("tokens"));
        for layer in 0..config.n_layers {
            append_kv(&mut pool, layer, &batch, [&keys, &values]).expect("keys and values");
        }
        if from == 0 && n < tokens {
            pool.commit(&batch).expect("a batch that has begun");
        }
        last = batch;
    }
    (pool, last)
}

/// Cache dtypes and head widths.
fn cases() -> impl Iterator<Item = (KvDtype, usize)> {
    KvDtype::ALL.into_iter().flat_map(|dtype| [(dtype, 64), (dtype, 128)])
}

fn queries(config: &MptConfig, batch: &Batch) -> Tensor {
    random(&[batch.len(), config.n_heads, config.head_dim], 3)
}

fn attend(config: &MptConfig, q: &Tensor, pool: &KvPool, batch: &Batch) {
    let scores = scores(config);
    for layer in 0..config.n_layers {
        black_box(paged_attention(q, pool, layer, batch, &scores, None).expect("attention"));
    }
}

#[divan::bench(args = cases().map(Case), sample_count = 10, sample_size = 1)]
fn decode(bencher: Bencher<'_, '_>, Case((dtype, head_dim)): &Case) {
    let config = config(*head_dim, 24);
    let (pool, batch) = filled(&config, TOKENS, 1, *dtype);
    let (q, bytes) = (queries(&config, &batch), KvPool::bytes(&config, TOKENS, *dtype));
    bencher.counter(BytesCount::new(bytes)).bench_local(|| attend(&config, &q, &pool, &batch));
}

#[divan::bench(args = cases().map(Case), consts = [512, 4096], sample_count = 5, sample_size = 1)]
fn prefill<const PROMPT: usize>(bencher: Bencher<'_, '_>, Case((dtype, head_dim)): &Case) {
    let config = config(*head_dim, 2);
    let (pool, batch) = filled(&config, PROMPT, PROMPT, *dtype);
    let q = queries(&config, &batch);
    let operations = 4 * config.n_layers * config.d_model * PROMPT * (PROMPT + 1) / 2;
    bencher.counter(ItemsCount::new(operations)).bench_local(|| attend(&config, &q, &pool, &batch));
}

/// A cache dtype and a head width.
struct Case((KvDtype, usize));

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.0.0, self.0.1)
    }
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn plain_read(bencher: Bencher<'_, '_>) {
    let bytes = KvPool::bytes(&config(128, 24), TOKENS, KvDtype::F32);
    let words: Vec<u64> = (0..bytes / 8).collect();
    let sum = |words: &[u64]| words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
    bencher
        .counter(BytesCount::new(bytes))
        .bench(|| black_box(&words).par_chunks(1 << 15).map(sum).reduce(|| 0, u64::wrapping_add));
}
