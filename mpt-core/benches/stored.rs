//! Products with stored weights, as decoding (one row) and prefill (many rows) of a 7B model have them.
//!
//! For one row the figure to look at is bytes a second, against what the memory gives; for many, items (operations).

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use mpt_core::testing::{random, stored};
use mpt_core::{Format, ops};

fn main() {
    divan::main();
}

const D_MODEL: usize = 4096;
const FORMATS: [Format; 8] = [
    Format::F32,
    Format::F16,
    Format::BF16,
    Format::Q8_0,
    Format::Q4_0,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
];

#[divan::bench(args = FORMATS)]
fn decode(bencher: Bencher<'_, '_>, format: Format) {
    let weight = stored(&random(&[4 * D_MODEL, D_MODEL], 1), format).in_panels().expect("room");
    let x = random(&[1, D_MODEL], 2);
    bencher
        .counter(BytesCount::new(weight.num_bytes()))
        .bench(|| ops::stored_linear(black_box(&x), &weight).expect("a product"));
}

#[divan::bench(args = FORMATS)]
fn prefill(bencher: Bencher<'_, '_>, format: Format) {
    const TOKENS: usize = 256;
    let weight = stored(&random(&[4 * D_MODEL, D_MODEL], 1), format).in_panels().expect("room");
    let x = random(&[TOKENS, D_MODEL], 2);
    bencher
        .counter(ItemsCount::new(2 * TOKENS * D_MODEL * 4 * D_MODEL))
        .bench(|| ops::stored_linear(black_box(&x), &weight).expect("a product"));
}
