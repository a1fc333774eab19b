//! Matrix products: a square one, and those of the feed-forward layer of a 125M model, forward and backward.
//!
//! Compare items (operations) a second with the peak of the processor.

use divan::Bencher;
use divan::counter::ItemsCount;
use mpt_core::ops::Precision;
use mpt_core::testing::MatmulBench;

fn main() {
    divan::main();
}

const SQUARE: [usize; 3] = [2048, 2048, 2048];
const CASES: [([usize; 3], &str); 4] =
    [(SQUARE, "NT"), ([2048, 3072, 768], "NT"), ([2048, 768, 3072], "NN"), ([3072, 768, 2048], "TN")];

fn product(bencher: Bencher<'_, '_>, case: usize, precision: Precision) {
    let (size, layout) = CASES[case];
    let mut product = MatmulBench::new(size, layout, precision);
    bencher.counter(ItemsCount::new(product.flops())).bench_local(|| product.run());
}

#[divan::bench(args = 0..CASES.len())]
fn f32(bencher: Bencher<'_, '_>, case: usize) {
    product(bencher, case, Precision::F32);
}

#[divan::bench(args = 0..CASES.len())]
fn bf16(bencher: Bencher<'_, '_>, case: usize) {
    product(bencher, case, Precision::Bf16);
}
