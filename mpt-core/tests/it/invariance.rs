//! The bits of a token depend on its own sequence alone, in every form of weights and cache: not on how a prompt is cut,
//! not on other sequences in the batch, not on shared pages, not on threads.

use candle_core::Device;
use mpt_core::testing::stored;
use mpt_core::{
    Batch, CausalLm, KvDtype, KvPool, MptConfig, ParamId, Parameter, ParameterSource, Params, Precision,
    Result, SeqId, WeightDtype,
};
use proptest::prelude::*;

/// Every form of weights, with the precision it is used in.
const FORMS: [(WeightDtype, Precision); 10] = [
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

/// Parameters whose matrices are rounded to a form.
struct Rounded<'a> {
    params: &'a Params,
    format: WeightDtype,
    precision: Precision,
}

impl ParameterSource for Rounded<'_> {
    fn get(&self, id: ParamId, shape: &[usize]) -> Result<Parameter> {
        let parameter = ParameterSource::get(self.params, id, shape)?;
        let (Parameter::Tensor(values), [_, _]) = (&parameter, shape) else { return Ok(parameter) };
        let stored = stored(values, self.format).prepack_int8()?;
        let stored = if self.precision == Precision::Bf16 { stored.prepack_bf16()? } else { stored };
        Ok(Parameter::Stored(stored))
    }

    fn precision(&self) -> Precision {
        self.precision
    }
}

fn model((format, precision): (WeightDtype, Precision), kv_n_heads: usize) -> CausalLm {
    let mut config = MptConfig::mpt(256, 2, 4, 64, 64).expect("possible sizes");
    config.attn_config.kv_n_heads = kv_n_heads;
    let params = Params::init(&config, 3, &Device::Cpu).expect("room");
    CausalLm::new(&config, &Rounded { params: &params, format, precision }).expect("a model")
}

fn tokens(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32).map(|at| (at * 31 + at * at * 7 + seed) % 64).collect()
}

/// Bits of the logits `[tokens, vocab]` of new tokens of the first of several sequences.
fn run(model: &CausalLm, pool: &mut KvPool, news: &[(SeqId, &[u32])]) -> Vec<u32> {
    let mut batch = Batch::new();
    news.iter().for_each(|(id, tokens)| batch.push(*id, tokens).expect("new tokens"));
    let logits = model.logits(&model.forward(&batch, pool).expect("a pass")).expect("logits");
    let own = logits.narrow(0, 0, news[0].1.len()).and_then(|x| x.flatten_all()?.to_vec1::<f32>());
    let own = own.expect("logits of the first sequence");
    assert!(own.iter().all(|value| value.is_finite()));
    own.into_iter().map(f32::to_bits).collect()
}

/// The whole sequence at once, alone in its pool.
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
        for form in FORMS {
            let model = model(form, kv_n_heads);
            for dtype in KvDtype::ALL {
                let expected = alone(&model, dtype, &tokens);
                let mut pool = KvPool::new(model.config(), 2048, dtype).expect("room");
                // begins as a fork of a sequence that went on differently
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
                prop_assert!(found == expected[shared * vocab..], "{:?} {}: other bits", form, dtype);
            }
        }
    }
}

/// Few rows at a time, which other kernels than those of many may multiply.
#[test]
fn bits_do_not_depend_on_the_length_of_pieces() {
    let tokens = tokens(75, 11);
    for form in FORMS {
        let model = model(form, 2);
        for dtype in KvDtype::ALL {
            let whole = alone(&model, dtype, &tokens);
            for n in [1, 2, 4, 5, 17] {
                let mut pool = KvPool::new(model.config(), 128, dtype).expect("room");
                let id = pool.add();
                let pieces = tokens.chunks(n).flat_map(|piece| run(&model, &mut pool, &[(id, piece)]));
                assert!(pieces.collect::<Vec<_>>() == whole, "{form:?} {dtype} in pieces of {n}");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let tokens = tokens(90, 5);
    for form in FORMS {
        let model = model(form, 2);
        for dtype in KvDtype::ALL {
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                pool.install(|| alone(&model, dtype, &tokens))
            };
            assert!(on(1) == on(3), "{form:?} {dtype}");
        }
    }
}
