//! Elementwise ops of a training step at the shape of a 125M model: 2048 tokens, d_model 768, feed-forward width 3072.
//!
//! An item is an element. Memory bandwidth allows about 2 G items a second on two threads.

use divan::Bencher;
use divan::counter::ItemsCount;
use mpt_core::config::Activation;
use mpt_core::ops;
use mpt_core::ops::{NormKind, NormParams};
use mpt_core::testing::random;

const ACTIVATIONS: [Activation; 4] =
    [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Relu];
const HIDDEN: [usize; 2] = [2048, 3072];
const WIDTH: [usize; 2] = [2048, 768];

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

#[divan::bench(args = ACTIVATIONS)]
fn activation(bencher: Bencher<'_, '_>, kind: Activation) {
    let x = random(&HIDDEN, 1);
    bencher
        .counter(ItemsCount::new(x.elem_count()))
        .bench(|| ops::activation(&x, kind).expect("an activation"));
}

#[divan::bench(args = ACTIVATIONS)]
fn activation_backward(bencher: Bencher<'_, '_>, kind: Activation) {
    let (x, dy) = (random(&HIDDEN, 1), random(&HIDDEN, 2));
    bencher
        .counter(ItemsCount::new(x.elem_count()))
        .with_inputs(|| x.copy().expect("room"))
        .bench_values(|x| ops::activation_backward(x, kind, &dy).expect("a gradient"));
}

#[divan::bench]
fn layer_norm(bencher: Bencher<'_, '_>) {
    let (x, weight) = (random(&WIDTH, 1), random(&WIDTH[1..], 2));
    let weights = NormParams { kind: NormKind::Layer, weight: &weight, eps: 1e-5 };
    bencher.counter(ItemsCount::new(x.elem_count())).bench(|| ops::norm(&x, weights).expect("a norm"));
}

#[divan::bench]
fn layer_norm_backward(bencher: Bencher<'_, '_>) {
    let (x, weight, dy) = (random(&WIDTH, 1), random(&WIDTH[1..], 2), random(&WIDTH, 3));
    let weights = NormParams { kind: NormKind::Layer, weight: &weight, eps: 1e-5 };
    bencher
        .counter(ItemsCount::new(x.elem_count()))
        .bench(|| ops::norm_backward(&x, weights, &dy).expect("gradients"));
}

/// Sum of two residual streams.
#[divan::bench]
fn residual_add(bencher: Bencher<'_, '_>) {
    let (x, y) = (random(&WIDTH, 1), random(&WIDTH, 2));
    bencher.counter(ItemsCount::new(x.elem_count())).bench_local(|| ops::add(&x, &y).expect("a sum"));
}
