//! Comparison of tensors from two implementations.

use candle_core::{DType, Tensor};

/// All values in order, as f32.
pub(crate) fn flat(tensor: &Tensor) -> Vec<f32> {
    let values = tensor.to_dtype(DType::F32).and_then(|x| x.flatten_all()).and_then(|x| x.to_vec1());
    values.expect("numbers")
}

/// Largest difference relative to the largest expected magnitude; NaN when a value is NaN.
pub(crate) fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0f32, |top, next| if next > top || next.is_nan() { next } else { top }) / range(expected)
}

/// Largest magnitude.
pub(crate) fn range(values: &[f32]) -> f32 {
    values.iter().fold(0f32, |top, x| top.max(x.abs())).max(f32::MIN_POSITIVE)
}
