//! Skinny GEMM: products with a factor of few rows, such as those of LoRA; `r` is the rank.
//!
//! Factors stay f32 at any precision of the model, since rounding them would take longer than multiplying them.

use candle_core::Tensor;

use super::device::backend_of;
use crate::error::{Error, Result};

/// `x w^T`: `x` `[.., k]`, `w` `[r, k]`; returns `[.., r]`.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree.
pub fn skinny_linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (_, k) = w.dims2()?;
    expect_width("x", x, k)?;
    backend_of(x)?.skinny_linear(&x.contiguous()?, &w.contiguous()?)
}

/// `y += a w`, in place: `y` `[.., n]` contiguous and not shared, `a` `[.., r]` of as many rows, `w` `[r, n]`.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree.
pub fn skinny_linear_add(y: &Tensor, a: &Tensor, w: &Tensor) -> Result<()> {
    let (r, n) = w.dims2()?;
    expect_width("a", a, r)?;
    expect_width("y", y, n)?;
    expect_rows(a, r, y, n)?;
    backend_of(y)?.skinny_linear_add(y, &a.contiguous()?, &w.contiguous()?)
}

/// `a^T x`: `a` `[.., r]`, `x` `[.., n]` of as many rows; returns `[r, n]`.
///
/// # Errors
/// [`Error::Shape`] when the numbers of rows differ.
pub fn skinny_gradient(a: &Tensor, x: &Tensor) -> Result<Tensor> {
    let width = |x: &Tensor| x.dims().last().copied().unwrap_or(1).max(1);
    expect_rows(a, width(a), x, width(x))?;
    backend_of(x)?.skinny_gradient(&a.contiguous()?, &x.contiguous()?)
}

fn expect_width(argument: &'static str, x: &Tensor, width: usize) -> Result<()> {
    if x.dims().last() == Some(&width) && width > 0 {
        return Ok(());
    }
    let (actual, expected) = (format!("{:?}", x.dims()), format!("[.., {width}]"));
    Err(Error::Shape { op: "skinny product", argument, actual, expected })
}

fn expect_rows(a: &Tensor, r: usize, x: &Tensor, n: usize) -> Result<()> {
    let (found, expected) = (a.elem_count() / r.max(1), x.elem_count() / n.max(1));
    if found == expected {
        return Ok(());
    }
    let (actual, expected) = (format!("{:?}", a.dims()), format!("{expected} rows"));
    Err(Error::Shape { op: "skinny product", argument: "a", actual, expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_backward, random};

    #[test]
    fn gradients_agree_with_the_formula_and_finite_differences() {
        check_backward(
            &[random(&[5, 7], 1), random(&[3, 7], 2)],
            |args| args[0].matmul(&args[1].t()?),
            |args| skinny_linear(&args[0], &args[1]),
            |args, dy| {
                let dx = args[0].zeros_like()?;
                skinny_linear_add(&dx, dy, &args[1])?;
                Ok(vec![dx, skinny_gradient(dy, &args[0])?])
            },
        );
    }

    #[test]
    fn products_are_added_and_wrong_shapes_named() {
        let (y, a, w) = (random(&[70, 300], 1), random(&[70, 4], 2), random(&[4, 300], 3));
        let expected = (&y + a.matmul(&w).unwrap()).unwrap();
        skinny_linear_add(&y, &a, &w).unwrap();
        assert_close(&y, &expected, 1e-5);
        let error = skinny_linear_add(&y, &random(&[69, 4], 1), &w).unwrap_err().to_string();
        assert_eq!(error, "skinny product: `a` is [69, 4], expected 70 rows");
        assert!(skinny_linear(&y, &random(&[4, 299], 1)).unwrap_err().to_string().contains("[.., 299]"));
    }
}
