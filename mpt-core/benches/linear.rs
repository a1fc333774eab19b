//! Linear maps by a stored weight of each dtype, at the shape of a 7B model: decoding (1 to 24 rows), prefill (512 rows), and the
//! gradient of the input.
//!
//! For few rows compare bytes a second with the bandwidth of memory, for many rows items (operations) a second with the peak.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use mpt_core::testing::{random, stored};
use mpt_core::{Parameter, Precision, StoredTensor, WeightDtype, ops};

fn main() {
    divan::main();
}

const D_MODEL: usize = 4096;
const DTYPES: [WeightDtype; 9] = WeightDtype::ALL;

/// Weight `[4 * D_MODEL, D_MODEL]`, prepacked as for f32 products.
fn weight(dtype: WeightDtype) -> (StoredTensor, Parameter) {
    let rows = random(&[D_MODEL / 16, D_MODEL], 1);
    let all = rows.repeat((64, 1)).expect("a matrix");
    let weight = stored(&all, dtype).prepack_int8().expect("room");
    (weight.clone(), Parameter::Stored(weight))
}

#[divan::bench(args = DTYPES, consts = [1, 4, 8, 16, 24, 512], max_time = 2)]
fn forward<const ROWS: usize>(bencher: Bencher<'_, '_>, dtype: WeightDtype) {
    let (stored, weight) = weight(dtype);
    let x = random(&[ROWS, D_MODEL], 2);
    bencher
        .counter(BytesCount::new(stored.num_bytes()))
        .counter(ItemsCount::new(2 * ROWS * D_MODEL * 4 * D_MODEL))
        .bench(|| ops::linear(black_box(&x), &weight, Precision::F32).expect("a product"));
}

#[divan::bench(args = DTYPES, max_time = 2)]
fn input_gradient(bencher: Bencher<'_, '_>, dtype: WeightDtype) {
    const ROWS: usize = 512;
    let (_, weight) = weight(dtype);
    let dy = random(&[ROWS, 4 * D_MODEL], 2);
    bencher
        .counter(ItemsCount::new(2 * ROWS * D_MODEL * 4 * D_MODEL))
        .bench(|| ops::linear_backward(black_box(&dy), &weight, Precision::F32).expect("a gradient"));
}
