//! Products with stored weights, as decoding (one row, or a few) and prefill (many rows) of a 7B model have them, and the
//! gradient of their input.
//!
//! For few rows the figure to look at is bytes a second, against what the memory gives; for many, items (operations).

use candle_core::Var;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use mpt_core::testing::{random, stored};
use mpt_core::{Format, StoredTensor, ops};

fn main() {
    divan::main();
}

const D_MODEL: usize = 4096;
const FORMATS: [Format; 9] = [
    Format::F32,
    Format::F16,
    Format::BF16,
    Format::Q8_0,
    Format::Q4_0,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
    Format::Nf4,
];

/// A weight `[4 * D_MODEL, D_MODEL]` as models that are not rounded to bf16 hold it.
fn weight(format: Format) -> StoredTensor {
    let rows = random(&[D_MODEL / 16, D_MODEL], 1);
    let all = rows.repeat((64, 1)).expect("a matrix");
    stored(&all, format).in_panels().expect("room")
}

#[divan::bench(args = FORMATS, consts = [1, 4, 8, 16, 24, 512], max_time = 2)]
fn forward<const ROWS: usize>(bencher: Bencher<'_, '_>, format: Format) {
    let weight = weight(format);
    let x = random(&[ROWS, D_MODEL], 2);
    bencher
        .counter(BytesCount::new(weight.num_bytes()))
        .counter(ItemsCount::new(2 * ROWS * D_MODEL * 4 * D_MODEL))
        .bench(|| ops::stored_linear(black_box(&x), &weight).expect("a product"));
}

/// Forward and backward together, since the op gives no gradient by itself.
#[divan::bench(args = FORMATS, max_time = 2)]
fn forward_and_input_gradient(bencher: Bencher<'_, '_>, format: Format) {
    const ROWS: usize = 512;
    let weight = weight(format);
    let x = Var::from_tensor(&random(&[ROWS, D_MODEL], 2)).expect("a variable");
    bencher.counter(ItemsCount::new(4 * ROWS * D_MODEL * 4 * D_MODEL)).bench(|| {
        ops::stored_linear(black_box(&x), &weight).and_then(|y| Ok(y.backward()?)).expect("a gradient")
    });
}
