//! The parts of a training step at the shape of a small model: 512 tokens x 4, d_model 768, 12 heads, vocabulary 50432.
//!
//! Rates are printed as items per second, an item being one multiply-add counted as two operations.

use candle_core::{Tensor, Var};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use mpt_core::testing::random;
use mpt_core::{Parameter, alibi_slopes, ops};

const TOKENS: usize = 2048;
const SEQ: usize = 512;
const D_MODEL: usize = 768;
const N_HEADS: usize = 12;
const VOCAB: usize = 50432;

fn main() {
    divan::main();
}

fn variable(shape: &[usize], seed: u64) -> Tensor {
    Var::from_tensor(&random(shape, seed)).expect("a variable").into_inner()
}

fn backward(of: &Tensor) {
    black_box(of.sum_all().and_then(|sum| sum.backward()).expect("a backward pass"));
}

#[divan::bench]
fn linear_forward(bencher: Bencher<'_, '_>) {
    let (x, w) = (random(&[TOKENS, D_MODEL], 1), random(&[4 * D_MODEL, D_MODEL], 2));
    bencher
        .counter(ItemsCount::new(2 * TOKENS * D_MODEL * 4 * D_MODEL))
        .bench(|| ops::linear(&x, &w, None, ops::Products::F32).expect("a product"));
}

#[divan::bench]
fn linear_forward_and_backward(bencher: Bencher<'_, '_>) {
    let (x, w) = (variable(&[TOKENS, D_MODEL], 1), variable(&[4 * D_MODEL, D_MODEL], 2));
    bencher
        .counter(ItemsCount::new(6 * TOKENS * D_MODEL * 4 * D_MODEL))
        .bench(|| backward(&ops::linear(&x, &w, None, ops::Products::F32).expect("a product")));
}

#[divan::bench(args = [false, true])]
fn attention(bencher: Bencher<'_, '_>, with_backward: bool) {
    let (batch, e) = (TOKENS / SEQ, D_MODEL / N_HEADS);
    let [q, k, v] = [1, 2, 3].map(|seed| variable(&[batch, SEQ, N_HEADS, e], seed));
    let scores = ops::Scores {
        scale: 0.125,
        cap: None,
        slopes: alibi_slopes(N_HEADS, 8.0).into(),
        products: ops::Products::F32,
    };
    let forward = || ops::attention([&q, &k, &v], &scores, &vec![0; batch], None).expect("attention");
    // the causal half of two products forward and five backward
    let products = if with_backward { 7 } else { 2 };
    bencher.counter(ItemsCount::new(products * batch * N_HEADS * SEQ * SEQ * e)).bench(|| {
        let out = forward();
        if with_backward {
            backward(&out);
        }
    });
}

#[divan::bench]
fn linear_cross_entropy(bencher: Bencher<'_, '_>) {
    let (hidden, weight) = (variable(&[TOKENS, D_MODEL], 1), variable(&[VOCAB, D_MODEL], 2));
    let weight = Parameter::Tensor(weight);
    let labels: Vec<u32> = (0..TOKENS as u32).map(|i| i * 17 % VOCAB as u32).collect();
    bencher.counter(ItemsCount::new(6 * TOKENS * D_MODEL * VOCAB)).bench(|| {
        backward(
            &ops::linear_cross_entropy(
                &hidden,
                &weight,
                &labels,
                ops::LogitForm::default(),
                ops::Products::F32,
            )
            .expect("a loss"),
        )
    });
}

#[divan::bench]
fn gelu_forward_and_backward(bencher: Bencher<'_, '_>) {
    let x = variable(&[TOKENS, 4 * D_MODEL], 1);
    bencher
        .counter(ItemsCount::new(TOKENS * 4 * D_MODEL))
        .bench(|| backward(&ops::activation(&x, mpt_core::Activation::Gelu).expect("an activation")));
}

#[divan::bench]
fn layer_norm_forward_and_backward(bencher: Bencher<'_, '_>) {
    let (x, w) = (variable(&[TOKENS, D_MODEL], 1), variable(&[D_MODEL], 2));
    bencher
        .counter(ItemsCount::new(TOKENS * D_MODEL))
        .bench(|| backward(&ops::layer_norm(&x, &w, None, 1e-5).expect("a norm")));
}

#[divan::bench]
fn lion_step(bencher: Bencher<'_, '_>) {
    let n = 10_000_000;
    let (param, grad) = (variable(&[n], 1), random(&[n], 2));
    let mut momentum = vec![0f32; n];
    let step = ops::optim::LionStep { lr: 1e-4, decay: 1e-5, beta1: 0.9, beta2: 0.99, grad_scale: 1.0 };
    bencher
        .counter(ItemsCount::new(n))
        .bench_local(|| ops::optim::lion_step(&param, &mut momentum, &grad, &step).expect("a step"));
}
