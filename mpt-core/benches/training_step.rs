//! Ops of a training step at the shape of a 125M model: 4 x 512 tokens, d_model 768, 12 heads, vocabulary 50432.
//!
//! An item is an operation; a multiply-add counts as two.

use divan::Bencher;
use divan::counter::ItemsCount;
use mpt_core::ops::{self, AttentionInputs, CrossEntropyInputs, NeedsGrad, Precision};
use mpt_core::testing::random;
use mpt_core::{Parameter, alibi_slopes};

const TOKENS: usize = 2048;
const SEQ: usize = 512;
const D_MODEL: usize = 768;
const N_HEADS: usize = 12;
const VOCAB: usize = 50432;

fn main() {
    divan::main();
}

#[divan::bench(args = [Precision::F32, Precision::Bf16])]
fn linear(bencher: Bencher<'_, '_>, precision: Precision) {
    let x = random(&[TOKENS, D_MODEL], 1);
    let weight = Parameter::Tensor(random(&[4 * D_MODEL, D_MODEL], 2));
    bencher
        .counter(ItemsCount::new(2 * TOKENS * D_MODEL * 4 * D_MODEL))
        .bench(|| ops::linear(&x, &weight, precision).expect("a product"));
}

#[divan::bench(args = [Precision::F32, Precision::Bf16])]
fn linear_gradients(bencher: Bencher<'_, '_>, precision: Precision) {
    let (x, dy) = (random(&[TOKENS, D_MODEL], 1), random(&[TOKENS, 4 * D_MODEL], 3));
    let weight = Parameter::Tensor(random(&[4 * D_MODEL, D_MODEL], 2));
    bencher.counter(ItemsCount::new(4 * TOKENS * D_MODEL * 4 * D_MODEL)).bench(|| {
        let dx = ops::linear_backward(&dy, &weight, precision).expect("a product");
        (dx, ops::weight_gradient(&dy, &x, precision).expect("a product"))
    });
}

#[divan::bench(args = [false, true])]
fn attention(bencher: Bencher<'_, '_>, with_backward: bool) {
    let (batch, e) = (TOKENS / SEQ, D_MODEL / N_HEADS);
    let [q, k, v, d_out] = [1, 2, 3, 4].map(|seed| random(&[batch, SEQ, N_HEADS, e], seed));
    let slopes = alibi_slopes(N_HEADS, 8.0).into();
    let scores = ops::ScoreParams { scale: 0.125, cap: None, slopes, precision: Precision::F32 };
    let inputs = AttentionInputs { q, k, v, first_key: None, dropout: None };
    // the causal half of two products forward and five backward
    let products = if with_backward { 7 } else { 2 };
    bencher.counter(ItemsCount::new(products * batch * N_HEADS * SEQ * SEQ * e)).bench(|| {
        let outputs = ops::attention(&inputs, &scores).expect("attention");
        with_backward.then(|| ops::attention_backward(&inputs, &scores, &outputs, &d_out).expect("gradients"))
    });
}

#[divan::bench]
fn cross_entropy(bencher: Bencher<'_, '_>) {
    let hidden = random(&[TOKENS, D_MODEL], 1);
    let weight = Parameter::Tensor(random(&[VOCAB, D_MODEL], 2));
    let labels: Vec<u32> = (0..TOKENS as u32).map(|i| i * 17 % VOCAB as u32).collect();
    let (scaling, precision) = (ops::LogitScaling::default(), Precision::F32);
    let inputs = CrossEntropyInputs { hidden: &hidden, weight: &weight, labels: &labels, scaling, precision };
    let needs = NeedsGrad { hidden: true, weight: true };
    bencher
        .counter(ItemsCount::new(6 * TOKENS * D_MODEL * VOCAB))
        .bench(|| ops::cross_entropy(inputs, needs).expect("a loss"));
}

#[divan::bench]
fn lion_step(bencher: Bencher<'_, '_>) {
    let n = 10_000_000;
    let [param, grad, momentum] = [1, 2, 3].map(|seed| random(&[n], seed));
    let step = ops::LionStep { lr: 1e-4, decay: 1e-5, beta1: 0.9, beta2: 0.99, grad_scale: 1.0 };
    bencher
        .counter(ItemsCount::new(n))
        .bench_local(|| ops::lion_step(&param, &momentum, &grad, &step).expect("a step"));
}
