//! Linear map by a weight `[out, in]`, stored in any dtype.

use candle_core::Tensor;

use super::device::backend_of;
use crate::dtype::Precision;
use crate::error::{Error, Result};
use crate::parameter::Parameter;

/// `x W^T`: `x` `[.., in]`, `weight` `[out, in]`; returns `[.., out]`.
///
/// `precision` is the rounding of factors for an f32 weight. A stored weight gives the product with its dequantized values, up to
/// the order of sums and the rounding of `x` that its dtype needs.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree.
pub fn linear(x: &Tensor, weight: &Parameter, precision: Precision) -> Result<Tensor> {
    let [_, d_in] = matrix_dims(weight)?;
    expect_width("x", x, d_in)?;
    backend_of(x)?.linear(&x.contiguous()?, weight, precision)
}

/// Gradient of the input of [`linear`], `dX = dY W`.
///
/// `dy` `[.., out]`, `weight` `[out, in]`; returns `[.., in]`.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree.
pub fn linear_backward(dy: &Tensor, weight: &Parameter, precision: Precision) -> Result<Tensor> {
    let [d_out, _] = matrix_dims(weight)?;
    expect_width("dy", dy, d_out)?;
    backend_of(dy)?.linear_backward(&dy.contiguous()?, weight, precision)
}

/// Gradient of the weight of [`linear`], `dW = dY^T X`.
///
/// `dy` `[.., out]`, `x` `[.., in]` of as many rows; returns `[out, in]`.
///
/// # Errors
/// [`Error::Shape`] when the numbers of rows differ.
pub fn weight_gradient(dy: &Tensor, x: &Tensor, precision: Precision) -> Result<Tensor> {
    let rows = |x: &Tensor| x.elem_count() / x.dims().last().copied().unwrap_or(1).max(1);
    if rows(dy) != rows(x) {
        let (actual, expected) = (format!("{:?}", dy.dims()), format!("{} rows", rows(x)));
        return Err(Error::Shape { op: "weight_gradient", argument: "dy", actual, expected });
    }
    backend_of(x)?.weight_gradient(&dy.contiguous()?, &x.contiguous()?, precision)
}

fn matrix_dims(weight: &Parameter) -> Result<[usize; 2]> {
    match weight.dims() {
        &[d_out, d_in] => Ok([d_out, d_in]),
        dims => Err(Error::Shape {
            op: "linear",
            argument: "weight",
            actual: format!("{dims:?}"),
            expected: "[out, in]".to_owned(),
        }),
    }
}

fn expect_width(argument: &'static str, x: &Tensor, width: usize) -> Result<()> {
    if x.dims().last() == Some(&width) {
        return Ok(());
    }
    let (actual, expected) = (format!("{:?}", x.dims()), format!("[.., {width}]"));
    Err(Error::Shape { op: "linear", argument, actual, expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::WeightDtype;
    use crate::testing::{assert_close, check_backward, random, stored as stored_as};
    use candle_core::{DType, Device};
    use proptest::prelude::*;

    const F32: Precision = Precision::F32;

    fn of_tensor(weight: &Tensor) -> Parameter {
        Parameter::Tensor(weight.clone())
    }

    #[test]
    fn agrees_with_candle() {
        let (x, w) = (random(&[2, 3, 5], 1), random(&[4, 5], 2));
        let expected = x.broadcast_matmul(&w.t().unwrap()).unwrap();
        assert_close(&linear(&x, &of_tensor(&w), F32).unwrap(), &expected, 1e-5);
    }

    #[test]
    fn gradients_agree_with_the_formula_and_finite_differences() {
        check_backward(
            &[random(&[2, 3, 5], 1), random(&[4, 5], 2)],
            |args| args[0].broadcast_matmul(&args[1].t()?),
            |args| linear(&args[0], &of_tensor(&args[1]), F32),
            |args, dy| {
                Ok(vec![linear_backward(dy, &of_tensor(&args[1]), F32)?, weight_gradient(dy, &args[0], F32)?])
            },
        );
    }

    #[test]
    fn a_wrong_width_is_named() {
        let weight = of_tensor(&random(&[4, 5], 2));
        let error = linear(&random(&[2, 3], 1), &weight, F32).unwrap_err();
        assert_eq!(error.to_string(), "linear: `x` is [2, 3], expected [.., 5]");
        let error = linear_backward(&random(&[2, 3], 1), &weight, F32).unwrap_err();
        assert_eq!(error.to_string(), "linear: `dy` is [2, 3], expected [.., 4]");
        let error = weight_gradient(&random(&[2, 3], 1), &random(&[3, 3], 1), F32).unwrap_err();
        assert!(error.to_string().contains("`dy` is [2, 3], expected 3 rows"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Sums of up to 600 products in another order.
        #[test]
        fn stored_products_are_those_of_the_dequantized_weight(rows in 1usize..40, d_in in 1usize..300, d_out in 1usize..600,
                                                           index in 0usize..3, seed: u32) {
            let dtype = [WeightDtype::F32, WeightDtype::F16, WeightDtype::BF16][index];
            let weight = stored_as(&random(&[d_out, d_in], seed.into()), dtype);
            let wide = weight.to_tensor(&Device::Cpu).unwrap();
            let weight = Parameter::Stored(weight);
            let x = random(&[rows, d_in], u64::from(seed) + 1);
            let found = linear(&x, &weight, F32).unwrap();
            assert_close(&found, &x.matmul(&wide.t().unwrap()).unwrap(), 1e-4);
            let dy = random(&[rows, d_out], u64::from(seed) + 2);
            assert_close(&linear_backward(&dy, &weight, F32).unwrap(), &dy.matmul(&wide).unwrap(), 1e-4);
        }
    }

    /// A prepacked weight holds the same values; its kernel rounds rows of `x` first.
    #[test]
    fn a_prepacked_weight_is_the_same_weight() {
        let (x, dy) = (random(&[19, 256], 2), random(&[19, 37], 3));
        for (dtype, tolerance) in
            [(WeightDtype::BF16, 1e-4), (WeightDtype::Q8_0, 0.3), (WeightDtype::Q6K, 0.3)]
        {
            let rows = stored_as(&random(&[37, 256], 1), dtype);
            let prepacked = rows.clone().prepack_int8().unwrap().prepack_bf16().unwrap();
            let wide = rows.to_tensor(&Device::Cpu).unwrap();
            assert_close(&prepacked.to_tensor(&Device::Cpu).unwrap(), &wide, 0.0);
            let rounded = if dtype == WeightDtype::BF16 { x.to_dtype(DType::BF16) } else { Ok(x.clone()) };
            let rounded = rounded.unwrap().to_dtype(DType::F32).unwrap();
            let prepacked = Parameter::Stored(prepacked);
            let found = linear(&x, &prepacked, F32).unwrap();
            assert_close(&found, &rounded.matmul(&wide.t().unwrap()).unwrap(), tolerance);
            assert_close(&linear_backward(&dy, &prepacked, F32).unwrap(), &dy.matmul(&wide).unwrap(), 1e-4);
        }
    }
}
