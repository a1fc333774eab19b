//! Bias: a vector added to every row.

use candle_core::Tensor;

use super::device::backend_of;
use crate::error::{Error, Result};

/// `y += bias` for every row, in place: `y` `[.., d]`, contiguous and not shared; `bias` `[d]`.
///
/// # Errors
/// [`Error::Shape`] when the last dimension of `y` is not `d`.
pub fn add_bias(y: &Tensor, bias: &Tensor) -> Result<()> {
    let d = bias.dims1()?;
    if y.dims().last() != Some(&d) {
        let (actual, expected) = (format!("{:?}", y.dims()), format!("[.., {d}]"));
        return Err(Error::Shape { op: "add_bias", argument: "y", actual, expected });
    }
    backend_of(y)?.add_bias(y, &bias.contiguous()?)
}

/// Sum `[d]` of the rows of `dy` `[.., d]`, the gradient of a bias, in a fixed order.
///
/// # Errors
/// When `dy` is a scalar.
pub fn column_sum(dy: &Tensor) -> Result<Tensor> {
    backend_of(dy)?.column_sum(&dy.contiguous()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_backward, random};

    #[test]
    fn gradients_agree_with_the_formula_and_finite_differences() {
        check_backward(
            &[random(&[70, 5], 1), random(&[5], 2)],
            |args| args[0].broadcast_add(&args[1]),
            |args| {
                let y = args[0].copy()?;
                add_bias(&y, &args[1])?;
                Ok(y)
            },
            |_, dy| Ok(vec![dy.clone(), column_sum(dy)?]),
        );
    }

    #[test]
    fn a_sum_of_many_rows_is_near_the_exact_one() {
        let x = random(&[1000, 3], 1);
        assert_close(&column_sum(&x).unwrap(), &x.sum(0).unwrap(), 1e-4);
        assert!(add_bias(&x, &random(&[4], 1)).unwrap_err().to_string().contains("`y` is [1000, 3]"));
    }
}
