//! Soft cap of values.

use candle_core::Tensor;

use super::device::backend_of;
use crate::error::Result;

/// `cap * tanh(x / cap)` element by element, in place: `x` contiguous and not shared.
///
/// # Errors
/// When `x` is not f32.
///
/// Source: Gemma Team 2024 (Gemma 2), section 2.
pub fn soft_cap(x: &Tensor, cap: f64) -> Result<()> {
    backend_of(x)?.soft_cap(x, cap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random};

    #[test]
    fn agrees_with_candle() {
        let x = (random(&[5, 9], 1) * 20.0).unwrap();
        let plain = ((&x / 7.0).unwrap().tanh().unwrap() * 7.0).unwrap();
        soft_cap(&x, 7.0).unwrap();
        assert_close(&x, &plain, 2e-6);
    }
}
