//! Rows of a table by id.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::host::{contiguous, host_slice};
use crate::error::{Error, Result};

/// The rows `ids` of `table` `[rows, d]` f32, as `[ids, d]`. The gradient adds up in the order of `ids`.
///
/// # Errors
/// [`Error::TokenId`] for an id that is no row.
pub fn embedding(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let (vocab_size, _) = table.dims2()?;
    if let Some((position, &id)) = ids.iter().enumerate().find(|&(_, &id)| id as usize >= vocab_size) {
        return Err(Error::TokenId { id, position, vocab_size });
    }
    Ok(table.contiguous()?.apply_op1(EmbeddingOp { ids: ids.into() })?)
}

struct EmbeddingOp {
    ids: Box<[u32]>,
}

impl CustomOp1 for EmbeddingOp {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, d) = layout.shape().dims2()?;
        let table = contiguous(table, layout)?;
        let mut rows = Vec::with_capacity(self.ids.len() * d);
        for &id in &self.ids {
            rows.extend_from_slice(&table[id as usize * d..][..d]);
        }
        Ok((CpuStorage::F32(rows), Shape::from((self.ids.len(), d))))
    }

    fn bwd(&self, table: &Tensor, _rows: &Tensor, d_rows: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (_, d) = table.dims2()?;
        let d_rows = d_rows.contiguous()?;
        let mut d_table = vec![0f32; table.elem_count()];
        for (&id, d_row) in self.ids.iter().zip(host_slice(&d_rows)?.chunks_exact(d)) {
            let sum = &mut d_table[id as usize * d..][..d];
            sum.iter_mut().zip(d_row).for_each(|(sum, value)| *sum += value);
        }
        Ok(Some(Tensor::from_vec(d_table, table.shape(), table.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, random};

    #[test]
    fn agrees_with_plain_tensors() {
        let table = random(&[6, 3], 1);
        let ids = Tensor::new(&[5u32, 0, 5], table.device()).unwrap();
        assert_close(&embedding(&table, &[5, 0, 5]).unwrap(), &table.index_select(&ids, 0).unwrap(), 0.0);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        check_gradients(&[random(&[6, 3], 1)], |args| embedding(&args[0], &[5, 0, 5]));
    }
}
