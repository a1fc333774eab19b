//! A linear map by a weight stored `[out, in]`.

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};

use super::host::{contiguous, host_slice};
use crate::error::{Error, Result};
use crate::kernels::cpu::gemm::{Mat, Products, matmul_new};

/// `x W^T`, plus `bias` where given.
///
/// `x` `[.., in]`, `weight` `[out, in]`, `bias` `[out]`; all f32. Returns `[.., out]`. The gradient of a weight that leads to no
/// variable is not computed, so a frozen layer costs its input gradient alone. `products` says how factors are rounded, in all
/// three products.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, products: Products) -> Result<Tensor> {
    let (_, d_in) = weight.dims2()?;
    if x.dims().last() != Some(&d_in) {
        let (actual, expected) = (format!("{:?}", x.dims()), format!("[.., {d_in}]"));
        return Err(Error::Shape { op: "linear", argument: "x", actual, expected });
    }
    let y = x.contiguous()?.apply_op2(&weight.contiguous()?, LinearOp { products })?;
    Ok(match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    })
}

struct LinearOp {
    products: Products,
}

impl CustomOp2 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (d_out, d_in) = weight_layout.shape().dims2()?;
        let rows = x_layout.shape().elem_count() / d_in;
        let y = forward(
            contiguous(x, x_layout)?,
            contiguous(weight, weight_layout)?,
            [rows, d_in, d_out],
            self.products,
        );
        let mut dims = x_layout.dims().to_vec();
        *dims.last_mut().expect("x has at least one dimension") = d_out;
        Ok((CpuStorage::F32(y), Shape::from(dims)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (d_out, d_in) = weight.dims2()?;
        let dims = [x.elem_count() / d_in, d_in, d_out];
        let (x_data, w_data, dy) = (host_slice(x)?, host_slice(weight)?, host_slice(&dy)?);
        let dx =
            || Tensor::from_vec(input_gradient(&dy, &w_data, dims, self.products), x.shape(), x.device());
        let dw = || {
            Tensor::from_vec(weight_gradient(&dy, &x_data, dims, self.products), weight.shape(), x.device())
        };
        Ok((x.track_op().then(dx).transpose()?, weight.track_op().then(dw).transpose()?))
    }
}

/// `Y = X W^T` for `x` `[rows, d_in]` and `weight` `[d_out, d_in]`.
pub(crate) fn forward(
    x: &[f32],
    weight: &[f32],
    [rows, d_in, d_out]: [usize; 3],
    products: Products,
) -> Vec<f32> {
    matmul_new(Mat::new(x, rows, d_in, d_in), Mat::new(weight, d_out, d_in, d_in).t(), products)
}

/// `dX = dY W`
pub(crate) fn input_gradient(
    dy: &[f32],
    weight: &[f32],
    [rows, d_in, d_out]: [usize; 3],
    products: Products,
) -> Vec<f32> {
    matmul_new(Mat::new(dy, rows, d_out, d_out), Mat::new(weight, d_out, d_in, d_in), products)
}

/// `dW = dY^T X`
pub(crate) fn weight_gradient(
    dy: &[f32],
    x: &[f32],
    [rows, d_in, d_out]: [usize; 3],
    products: Products,
) -> Vec<f32> {
    matmul_new(Mat::new(dy, rows, d_out, d_out).t(), Mat::new(x, rows, d_in, d_in), products)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, random};

    #[test]
    fn agrees_with_plain_tensors() {
        let (x, w, b) = (random(&[2, 3, 5], 1), random(&[4, 5], 2), random(&[4], 3));
        let expected = x.broadcast_matmul(&w.t().unwrap()).unwrap().broadcast_add(&b).unwrap();
        assert_close(&linear(&x, &w, Some(&b), Products::F32).unwrap(), &expected, 1e-5);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        check_gradients(&[random(&[2, 3, 5], 1), random(&[4, 5], 2), random(&[4], 3)], |args| {
            linear(&args[0], &args[1], Some(&args[2]), Products::F32)
        });
    }

    #[test]
    fn a_wrong_width_is_named() {
        let error = linear(&random(&[2, 3], 1), &random(&[4, 5], 2), None, Products::F32).unwrap_err();
        assert_eq!(error.to_string(), "linear: `x` is [2, 3], expected [.., 5]");
    }
}
