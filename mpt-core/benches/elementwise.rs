//! Elementwise work of a training step at the shape of a small model: 2048 tokens, d_model 768, a feed-forward layer of
//! 3072. An item is an element; at the speed of memory there are about 2 G of them a second on two threads.

use candle_core::{Tensor, Var};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use mpt_core::testing::random;
use mpt_core::{Activation, ops};

const ACTIVATIONS: [Activation; 4] =
    [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Relu];
const HIDDEN: [usize; 2] = [2048, 3072];
const WIDTH: [usize; 2] = [2048, 768];

/// The one the program runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn variable(shape: &[usize], seed: u64) -> Tensor {
    Var::from_tensor(&random(shape, seed)).expect("a variable").into_inner()
}

#[divan::bench(args = ACTIVATIONS)]
fn activation(bencher: Bencher<'_, '_>, kind: Activation) {
    let x = random(&HIDDEN, 1);
    bencher
        .counter(ItemsCount::new(x.elem_count()))
        .bench(|| ops::activation(&x, kind).expect("an activation"));
}

/// With the gradient of ones, which is a pass of its own.
#[divan::bench(args = ACTIVATIONS)]
fn activation_backward(bencher: Bencher<'_, '_>, kind: Activation) {
    let y = ops::activation(&variable(&HIDDEN, 1), kind).expect("an activation");
    bencher
        .counter(ItemsCount::new(y.elem_count()))
        .bench(|| black_box(y.backward().expect("a backward pass")));
}

#[divan::bench]
fn layer_norm(bencher: Bencher<'_, '_>) {
    let (x, w) = (random(&WIDTH, 1), random(&WIDTH[1..], 2));
    bencher
        .counter(ItemsCount::new(x.elem_count()))
        .bench(|| ops::layer_norm(&x, &w, None, 1e-5).expect("a norm"));
}

/// With the gradient of ones, which is a pass of its own.
#[divan::bench]
fn layer_norm_backward(bencher: Bencher<'_, '_>) {
    let y = ops::layer_norm(&variable(&WIDTH, 1), &variable(&WIDTH[1..], 2), None, 1e-5).expect("a norm");
    bencher
        .counter(ItemsCount::new(y.elem_count()))
        .bench(|| black_box(y.backward().expect("a backward pass")));
}

/// The sum of two streams, which a norm fused with it would save reading again.
#[divan::bench]
fn residual_add(bencher: Bencher<'_, '_>) {
    let (x, y) = (random(&WIDTH, 1), random(&WIDTH, 2));
    bencher.counter(ItemsCount::new(x.elem_count())).bench(|| (&x + &y).expect("a sum"));
}
