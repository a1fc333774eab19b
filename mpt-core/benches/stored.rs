//! Products with stored weights, as decoding (one row, or a few) and prefill (many rows) of a 7B model have them, and the
//! gradient of their input.
//!
//! For few rows the figure to look at is bytes a second, against what the memory gives; for many, items (operations).

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use mpt_core::testing::{random, stored};
use mpt_core::{Parameter, Precision, StoredTensor, WeightDtype, ops};

fn main() {
    divan::main();
}

const D_MODEL: usize = 4096;
const FORMATS: [WeightDtype; 9] = [
    WeightDtype::F32,
    WeightDtype::F16,
    WeightDtype::BF16,
    WeightDtype::Q8_0,
    WeightDtype::Q4_0,
    WeightDtype::Q4K,
    WeightDtype::Q5K,
    WeightDtype::Q6K,
    WeightDtype::Nf4,
];

/// A weight `[4 * D_MODEL, D_MODEL]` as models that are not rounded to bf16 hold it.
fn weight(format: WeightDtype) -> (StoredTensor, Parameter) {
    let rows = random(&[D_MODEL / 16, D_MODEL], 1);
    let all = rows.repeat((64, 1)).expect("a matrix");
    let weight = stored(&all, format).in_panels().expect("room");
    (weight.clone(), Parameter::Stored(weight))
}

#[divan::bench(args = FORMATS, consts = [1, 4, 8, 16, 24, 512], max_time = 2)]
fn forward<const ROWS: usize>(bencher: Bencher<'_, '_>, format: WeightDtype) {
    let (stored, weight) = weight(format);
    let x = random(&[ROWS, D_MODEL], 2);
    bencher
        .counter(BytesCount::new(stored.num_bytes()))
        .counter(ItemsCount::new(2 * ROWS * D_MODEL * 4 * D_MODEL))
        .bench(|| ops::linear(black_box(&x), &weight, Precision::F32).expect("a product"));
}

#[divan::bench(args = FORMATS, max_time = 2)]
fn input_gradient(bencher: Bencher<'_, '_>, format: WeightDtype) {
    const ROWS: usize = 512;
    let (_, weight) = weight(format);
    let dy = random(&[ROWS, 4 * D_MODEL], 2);
    bencher
        .counter(ItemsCount::new(2 * ROWS * D_MODEL * 4 * D_MODEL))
        .bench(|| ops::linear_backward(black_box(&dy), &weight, Precision::F32).expect("a gradient"));
}
