//! Batch invariance: the bits of a token depend on its own sequence alone, for every weight and KV dtype. Prefill chunks,
//! other sequences of the batch, shared pages and threads do not matter.

use candle_core::Device;
use mpt_core::params::ParamId;
use mpt_core::testing::stored;
use mpt_core::{
    Batch, CausalLm, KvDtype, KvPool, MptConfig, Parameter, ParameterSource, Params, Precision, Result,
    SeqId, WeightDtype,
};
use proptest::prelude::*;

/// Weight dtypes with their matmul precision.
const WEIGHT_DTYPES: [(WeightDtype, Precision); 10] = [
    (WeightDtype::F32, Precision::F32),
    (WeightDtype::F16, Precision::F32),
    (WeightDtype::BF16, Precision::F32),
    (WeightDtype::BF16, Precision::Bf16),
    (WeightDtype::Q8_0, Precision::F32),
    (WeightDtype::Q4_0, Precision::F32),
    (WeightDtype::Q4K, Precision::F32),
    (WeightDtype::Q5K, Precision::F32),
    (WeightDtype::Q6K, Precision::F32),
    (WeightDtype::Nf4, Precision::F32),
];

/// Parameters with matrices converted to a dtype.
struct Rounded<'a> {
    params: &'a Params,
    dtype: WeightDtype,
    precision: Precision,
}

impl ParameterSource for Rounded<'_> {
    fn get(&self, id: ParamId, shape: &[usize]) -> Result<Parameter> {
        let parameter = ParameterSource::get(self.params, id, shape)?;
        let (Parameter::Tensor(values), [_, _]) = (&parameter, shape) else { return Ok(parameter) };
        let stored = stored(values, self.dtype).prepack_int8()?;
        let stored = if self.precision == Precision::Bf16 { stored.prepack_bf16()? } else { stored };
        Ok(Parameter::Stored(stored))
    }

    fn precision(&self) -> Precision {
        self.precision
    }
}

fn model((dtype, precision): (WeightDtype, Precision), kv_n_heads: usize) -> CausalLm {
    let mut config = MptConfig::mpt(256, 2, 4, 64, 64).expect("possible sizes");
    config.attn_config.kv_n_heads = kv_n_heads;
    let params = Params::init(&config, 3, &Device::Cpu).expect("room");
    CausalLm::new(&config, &Rounded { params: &params, dtype, precision }).expect("a model")
}

fn tokens(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32).map(|at| (at * 31 + at * at * 7 + seed) % 64).collect()
}

/// Bits of the logits `[tokens, vocab]` of the first sequence's new tokens.
fn run(model: &CausalLm, pool: &mut KvPool, news: &[(SeqId, &[u32])]) -> Vec<u32> {
    let mut batch = Batch::new();
    news.iter().for_each(|(id, tokens)| batch.push(*id, tokens).expect("new tokens"));
    let logits = model.logits(&model.forward(&batch, pool).expect("a pass")).expect("logits");
    let own = logits.narrow(0, 0, news[0].1.len()).and_then(|x| x.flatten_all()?.to_vec1::<f32>());
    let own = own.expect("logits of the first sequence");
    assert!(own.iter().all(|value| value.is_finite()));
    own.into_iter().map(f32::to_bits).collect()
}

/// Logits of a whole sequence at once, alone in its pool.
fn alone(model: &CausalLm, dtype: KvDtype, tokens: &[u32]) -> Vec<u32> {
    let mut pool = KvPool::new(model.config(), 1024, dtype).expect("room");
    let id = pool.add();
    run(model, &mut pool, &[(id, tokens)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn bits_depend_on_the_own_sequence_alone(
        seed in 0u32..1000,
        cuts in proptest::collection::vec(1usize..40, 1..8),
        neighbours in proptest::collection::vec(1usize..30, 0..4),
        shared in 0usize..70,
        kv_n_heads in prop_oneof![Just(4usize), Just(2), Just(1)],
    ) {
        let tokens = tokens(cuts.iter().sum(), seed);
        for weights in WEIGHT_DTYPES {
            let model = model(weights, kv_n_heads);
            for dtype in KvDtype::ALL {
                let expected = alone(&model, dtype, &tokens);
                let mut pool = KvPool::new(model.config(), 2048, dtype).expect("room");
                // a fork of a sequence with another continuation
                let shared = shared.min(tokens.len() - 1);
                let source = pool.add();
                let mut prefix = tokens[..shared].to_vec();
                prefix.extend([1, 2, 3]);
                run(&model, &mut pool, &[(source, &prefix)]);
                let id = pool.fork(source, shared).expect("a prefix");
                let others: Vec<(SeqId, Vec<u32>)> =
                    neighbours.iter().map(|&n| (pool.add(), self::tokens(n, seed + n as u32))).collect();
                let mut found = Vec::new();
                let (mut from, mut cuts) = (shared, cuts.iter().cycle());
                while from < tokens.len() {
                    let piece = &tokens[from..tokens.len().min(from + cuts.next().expect("a length"))];
                    let mut news = vec![(id, piece)];
                    news.extend(others.iter().map(|(id, tokens)| (*id, &tokens[..])));
                    found.extend(run(&model, &mut pool, &news));
                    from += piece.len();
                }
                let vocab = 64;
                prop_assert!(found == expected[shared * vocab..], "{:?} {}: other bits", weights, dtype);
            }
        }
    }
}

/// Chunks of few rows, which other kernels may multiply than many rows.
#[test]
fn bits_do_not_depend_on_the_length_of_pieces() {
    let tokens = tokens(75, 11);
    for weights in WEIGHT_DTYPES {
        let model = model(weights, 2);
        for dtype in KvDtype::ALL {
            let whole = alone(&model, dtype, &tokens);
            for n in [1, 2, 4, 5, 17] {
                let mut pool = KvPool::new(model.config(), 128, dtype).expect("room");
                let id = pool.add();
                let pieces = tokens.chunks(n).flat_map(|piece| run(&model, &mut pool, &[(id, piece)]));
                assert!(pieces.collect::<Vec<_>>() == whole, "{weights:?} {dtype} in pieces of {n}");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let tokens = tokens(90, 5);
    for weights in WEIGHT_DTYPES {
        let model = model(weights, 2);
        for dtype in KvDtype::ALL {
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                pool.install(|| alone(&model, dtype, &tokens))
            };
            assert!(on(1) == on(3), "{weights:?} {dtype}");
        }
    }
}
