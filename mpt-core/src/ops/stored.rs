//! A linear map and a table of rows whose values stay in the form they were stored in.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};

use crate::host::{contiguous, host_slice};
use crate::error::{Error, Result};
use crate::kernels::cpu::stored;
use crate::storage::StoredTensor;

/// `x W^T` for a frozen `weight` `[out, in]` in any stored form.
///
/// `x` `[.., in]` f32; returns `[.., out]` f32: the numbers that widening the whole weight first would give, up to the order
/// of sums. The gradient is that of `x` alone.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree.
pub fn stored_linear(x: &Tensor, weight: &StoredTensor) -> Result<Tensor> {
    let &[_, d_in] = weight.shape() else { return Err(no_matrix("stored_linear", weight)) };
    if x.dims().last() != Some(&d_in) {
        let (actual, expected) = (format!("{:?}", x.dims()), format!("[.., {d_in}]"));
        return Err(Error::Shape { op: "stored_linear", argument: "x", actual, expected });
    }
    Ok(x.contiguous()?.apply_op1(StoredLinearOp { weight: weight.clone() })?)
}

/// The rows `ids` of a stored `table` `[rows, d]`, as f32 `[ids, d]`. There is no gradient.
///
/// # Errors
/// [`Error::TokenId`] for an id that is no row.
pub fn stored_embedding(table: &StoredTensor, ids: &[u32]) -> Result<Tensor> {
    let &[vocab_size, d] = table.shape() else { return Err(no_matrix("stored_embedding", table)) };
    if let Some((position, &id)) = ids.iter().enumerate().find(|&(_, &id)| id as usize >= vocab_size) {
        return Err(Error::TokenId { id, position, vocab_size });
    }
    let mut rows = vec![0f32; ids.len() * d];
    for (&id, row) in ids.iter().zip(rows.chunks_exact_mut(d)) {
        table.widen_rows(id as usize..id as usize + 1, row);
    }
    Ok(Tensor::from_vec(rows, (ids.len(), d), &Device::Cpu)?)
}

fn no_matrix(op: &'static str, weight: &StoredTensor) -> Error {
    Error::Shape {
        op,
        argument: "weight",
        actual: format!("{:?}", weight.shape()),
        expected: "[out, in]".to_owned(),
    }
}

struct StoredLinearOp {
    weight: StoredTensor,
}

impl CustomOp1 for StoredLinearOp {
    fn name(&self) -> &'static str {
        "stored linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (d_out, d_in) = (self.weight.num_rows(), self.weight.row_len());
        let x = contiguous(x, layout)?;
        let mut y = vec![0f32; x.len() / d_in * d_out];
        stored::times_transposed(&mut y, x, &self.weight);
        let mut dims = layout.dims().to_vec();
        *dims.last_mut().expect("x has at least one dimension") = d_out;
        Ok((CpuStorage::F32(y), Shape::from(dims)))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let mut dx = vec![0f32; x.elem_count()];
        stored::times(&mut dx, &host_slice(&dy)?, &self.weight);
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random, stored};
    use crate::dtype::WeightDtype;
    use candle_core::{DType, Var};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Sums of up to 300 products in another order.
        #[test]
        fn products_are_those_of_the_widened_weight(rows in 1usize..40, d_in in 1usize..300, d_out in 1usize..600,
                                                    form in 0usize..3, seed: u32) {
            let format = [WeightDtype::F32, WeightDtype::F16, WeightDtype::BF16][form];
            let weight = stored(&random(&[d_out, d_in], seed.into()), format);
            let wide = weight.to_tensor(&Device::Cpu).unwrap();
            let x = Var::from_tensor(&random(&[rows, d_in], u64::from(seed) + 1)).unwrap();
            let found = stored_linear(&x, &weight).unwrap();
            assert_close(&found, &x.matmul(&wide.t().unwrap()).unwrap(), 1e-4);
            let gradients = found.backward().unwrap();
            let ones = Tensor::ones((rows, d_out), DType::F32, &Device::Cpu).unwrap();
            assert_close(gradients.get(&x).unwrap(), &ones.matmul(&wide).unwrap(), 1e-4);
        }
    }

    /// In tiles and in panels a weight holds the same values, and rows of `x` are rounded before they are multiplied.
    #[test]
    fn a_weight_in_another_order_is_the_same_weight() {
        let x = Var::from_tensor(&random(&[19, 256], 2)).unwrap();
        for (format, tolerance) in [(WeightDtype::BF16, 1e-4), (WeightDtype::Q8_0, 0.3), (WeightDtype::Q6K, 0.3)] {
            let rows = stored(&random(&[37, 256], 1), format);
            let other = rows.clone().in_panels().unwrap().in_tiles().unwrap();
            let wide = rows.to_tensor(&Device::Cpu).unwrap();
            assert_close(&other.to_tensor(&Device::Cpu).unwrap(), &wide, 0.0);
            let rounded =
                if format == WeightDtype::BF16 { x.to_dtype(DType::BF16) } else { Ok(x.as_tensor().clone()) };
            let rounded = rounded.unwrap().to_dtype(DType::F32).unwrap();
            let found = stored_linear(&x, &other).unwrap();
            assert_close(&found, &rounded.matmul(&wide.t().unwrap()).unwrap(), tolerance);
            let ones = Tensor::ones((19, 37), DType::F32, &Device::Cpu).unwrap();
            let gradient = found.backward().unwrap();
            assert_close(gradient.get(&x).unwrap(), &ones.matmul(&wide).unwrap(), 1e-4);
        }
    }

    #[test]
    fn rows_are_those_of_the_table() {
        let table = stored(&random(&[6, 3], 1), WeightDtype::BF16);
        let ids = Tensor::new(&[5u32, 0, 5], &Device::Cpu).unwrap();
        let expected = table.to_tensor(&Device::Cpu).unwrap().index_select(&ids, 0).unwrap();
        assert_close(&stored_embedding(&table, &[5, 0, 5]).unwrap(), &expected, 0.0);
        let message = stored_embedding(&table, &[6]).unwrap_err().to_string();
        assert!(message.starts_with("token id 6"), "{message}");
    }
}
