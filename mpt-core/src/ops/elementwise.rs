//! Elementwise sums and multiples, in place.

use candle_core::Tensor;

use super::device::backend_of;
use crate::error::{Error, Result};

/// `sum += x`, in place: both of one shape, `sum` contiguous and not shared.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn add(sum: &Tensor, x: &Tensor) -> Result<()> {
    if sum.dims() != x.dims() {
        let (actual, expected) = (format!("{:?}", x.dims()), format!("{:?}", sum.dims()));
        return Err(Error::Shape { op: "add", argument: "x", actual, expected });
    }
    backend_of(sum)?.add(sum, &x.contiguous()?)
}

/// `x *= factor`, in place: `x` contiguous and not shared.
///
/// # Errors
/// When `x` is not f32.
pub fn scale(x: &Tensor, factor: f64) -> Result<()> {
    if factor == 1.0 { Ok(()) } else { backend_of(x)?.scale(x, factor) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random};

    #[test]
    fn sums_and_multiples_are_written_in_place() {
        let (sum, x) = (random(&[70, 300], 1), random(&[70, 300], 2));
        let expected = ((&sum + &x).unwrap() * 0.25).unwrap();
        add(&sum, &x).unwrap();
        scale(&sum, 0.25).unwrap();
        assert_close(&sum, &expected, 0.0);
        assert!(add(&sum, &random(&[70], 1)).unwrap_err().to_string().starts_with("add: `x` is [70]"));
    }
}
