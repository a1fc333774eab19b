//! Comparison of tensors from two implementations.

use candle_core::{DType, Tensor};
use mpt_core::testing::largest;

/// All values in order, as f32.
pub(crate) fn flat(tensor: &Tensor) -> Vec<f32> {
    let values = tensor.to_dtype(DType::F32).and_then(|x| x.flatten_all()).and_then(|x| x.to_vec1());
    values.expect("numbers")
}

/// Largest difference relative to the largest expected magnitude; NaN when a value is NaN.
pub(crate) fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    largest(found.iter().zip(expected).map(|(a, b)| a - b)) as f32 / range(expected)
}

/// Largest magnitude; NaN if one value is NaN.
pub(crate) fn range(values: &[f32]) -> f32 {
    let top = largest(values.iter().copied()) as f32;
    if top == 0.0 { f32::MIN_POSITIVE } else { top }
}
