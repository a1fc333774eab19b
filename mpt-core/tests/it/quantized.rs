//! Values of quantized weights as the packages that define the forms read them.
//!
//! Tolerance: the same factors multiplied in another order, so two units in the last place.

use candle_core::Device;
use mpt_core::{WeightDtype, Weights};

use crate::compare::{flat, relative_error};
use crate::fixtures::Expected;
use crate::shared::golden;

/// Compares the first rows of every tensor that the case has, and returns the forms that were among them.
fn expect_values(weights: &Weights, expected: &Expected) -> Vec<WeightDtype> {
    let mut forms = Vec::new();
    for name in expected.names("") {
        let (stored, rows) =
            (weights.tensor(&name, None).expect("a tensor"), expected.tensor(&name).expect("rows"));
        let values = stored.to_tensor(&Device::Cpu).expect("f32 values");
        let found = values.narrow(0, 0, rows.dims()[0]).expect("the first rows");
        let error = relative_error(&flat(&found), &flat(&rows));
        assert!(error < 3e-7, "{name}, {}: {error:e}", stored.dtype());
        forms.push(stored.dtype());
    }
    forms
}

#[test]
fn blocks_of_a_gguf_file_hold_what_its_package_reads() {
    let dir = golden("gguf");
    let weights = Weights::open(&dir.join("model.gguf")).expect("a sound file");
    assert_eq!((weights.config().n_layers, weights.config().d_model), (2, 32));
    let forms = expect_values(&weights, &Expected::read(&dir));
    use WeightDtype::{BF16, F16, F32, Q4_0, Q4K, Q6K, Q8_0};
    for form in [F32, F16, BF16, Q8_0, Q4_0, Q4K, Q6K] {
        assert!(forms.contains(&form), "no tensor in {form}");
    }
}

#[test]
fn blocks_of_nf4_hold_what_bitsandbytes_reads() {
    let dir = golden("nf4");
    let weights = Weights::open(&dir).expect("a sound model");
    let forms = expect_values(&weights, &Expected::read(&dir));
    assert_eq!(forms, [WeightDtype::Nf4; 4]);
}
