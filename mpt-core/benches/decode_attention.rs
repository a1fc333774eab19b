//! Attention of one new token over 8,192 held by a cache, in all 24 layers of a model of the shape of `mpt-1b`.
//!
//! The figure to look at is bytes of cache a second, against `plain_read` of as many bytes as the f32 cache has.

use std::sync::Arc;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use mpt_core::ops::{Scores, cached_attention};
use mpt_core::testing::random;
use mpt_core::{KvCache, KvDtype, MptConfig, alibi_slopes};
use rayon::prelude::*;

const TOKENS: usize = 8192;

fn main() {
    divan::main();
}

fn config() -> MptConfig {
    MptConfig::preset("mpt-1b").expect("a preset")
}

/// A cache that lacks its last token's place in the count only.
fn filled(config: &MptConfig, dtype: KvDtype) -> KvCache {
    let mut cache = KvCache::new(config, 1, TOKENS, dtype).expect("room");
    let shape = [1, TOKENS, config.n_heads, config.head_dim];
    let (keys, values) = (random(&shape, 1), random(&shape, 2));
    for layer in 0..config.n_layers {
        cache.layer(layer).append(&keys, &values).expect("keys and values");
    }
    cache.advance(TOKENS - 1);
    cache
}

#[divan::bench(args = KvDtype::ALL, sample_count = 10, sample_size = 1)]
fn decode(bencher: Bencher<'_, '_>, dtype: KvDtype) {
    let config = config();
    let mut cache = filled(&config, dtype);
    let q = random(&[1, 1, config.n_heads, config.head_dim], 3);
    let slopes: Arc<[f32]> = alibi_slopes(config.n_heads, 8.0).into();
    let scores = Scores {
        scale: config.attn_config.softmax_scale,
        cap: None,
        slopes,
        products: mpt_core::Precision::F32,
    };
    bencher.counter(BytesCount::new(KvCache::bytes(&config, 1, TOKENS, dtype))).bench_local(|| {
        for layer in 0..config.n_layers {
            black_box(cached_attention(&q, &cache.layer(layer), &scores, None).expect("attention"));
        }
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn plain_read(bencher: Bencher<'_, '_>) {
    let bytes = KvCache::bytes(&config(), 1, TOKENS, KvDtype::F32);
    let words: Vec<u64> = (0..bytes / 8).collect();
    let sum = |words: &[u64]| words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
    bencher
        .counter(BytesCount::new(bytes))
        .bench(|| black_box(&words).par_chunks(1 << 15).map(sum).reduce(|| 0, u64::wrapping_add));
}
