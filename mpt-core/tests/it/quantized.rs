//! Dequantized values against the packages that define the formats, gguf and bitsandbytes.
//!
//! Tolerance: the same factors multiplied in another order, so two units in the last place.

use candle_core::Device;
use mpt_core::{WeightDtype, Weights};

use crate::compare::{flat, relative_error};
use crate::fixtures::Expected;
use crate::shared::golden;

/// Compares the first rows of every tensor that the case has, and returns their dtypes.
fn expect_values(weights: &Weights, expected: &Expected) -> Vec<WeightDtype> {
    let mut dtypes = Vec::new();
    for name in expected.names("") {
        let (stored, rows) =
            (weights.tensor(&name, None).expect("a tensor"), expected.tensor(&name).expect("rows"));
        let values = stored.to_tensor(&Device::Cpu).expect("f32 values");
        let found = values.narrow(0, 0, rows.dims()[0]).expect("the first rows");
        let error = relative_error(&flat(&found), &flat(&rows));
        assert!(error < 3e-7, "{name}, {}: {error:e}", stored.dtype());
        dtypes.push(stored.dtype());
    }
    dtypes
}

#[test]
fn blocks_of_a_gguf_file_hold_what_its_package_reads() {
    let dir = golden("gguf");
    let weights = Weights::open(&dir.join("model.gguf")).expect("a sound file");
    assert_eq!((weights.config().n_layers, weights.config().d_model), (2, 32));
    let dtypes = expect_values(&weights, &Expected::read(&dir));
    use WeightDtype::{BF16, F16, F32, Q4_0, Q4K, Q6K, Q8_0};
    for dtype in [F32, F16, BF16, Q8_0, Q4_0, Q4K, Q6K] {
        assert!(dtypes.contains(&dtype), "no tensor in {dtype}");
    }
}

#[test]
fn blocks_of_nf4_hold_what_bitsandbytes_reads() {
    let dir = golden("nf4");
    let weights = Weights::open(&dir).expect("a sound model");
    let dtypes = expect_values(&weights, &Expected::read(&dir));
    assert_eq!(dtypes, [WeightDtype::Nf4; 4]);
}
