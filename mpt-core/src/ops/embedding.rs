//! Embedding: rows of a table by id.

use candle_core::Tensor;

use super::device::{backend_of, backend_of_parameter};
use crate::error::{Error, Result};
use crate::parameter::Parameter;

/// Rows `ids` of `table` `[rows, d]`, stored in any dtype, as f32 `[ids, d]`.
///
/// # Errors
/// [`Error::TokenId`] for an id without a row.
pub fn embedding(table: &Parameter, ids: &[u32]) -> Result<Tensor> {
    let &[vocab_size, _] = table.dims() else {
        let (actual, expected) = (format!("{:?}", table.dims()), "[rows, d]".to_owned());
        return Err(Error::Shape { op: "embedding", argument: "table", actual, expected });
    };
    if let Some((position, &id)) = ids.iter().enumerate().find(|&(_, &id)| id as usize >= vocab_size) {
        return Err(Error::TokenId { id, position, vocab_size });
    }
    backend_of_parameter(table)?.embedding(table, ids)
}

/// Adds the gradient of the rows `ids`, `d_rows` `[ids, d]`, to that of their table, `d_table` `[rows, d]`, in place.
///
/// The gradients of one row are summed in the order of `ids`, and their sum is added once.
///
/// # Errors
/// [`Error::Shape`] when `d_rows` has another number of rows or another width.
pub fn embedding_backward(d_table: &Tensor, ids: &[u32], d_rows: &Tensor) -> Result<()> {
    let (rows, d) = d_table.dims2()?;
    if d_rows.dims() != [ids.len(), d] || ids.iter().any(|&id| id as usize >= rows) {
        let (actual, expected) = (format!("{:?}", d_rows.dims()), format!("[{}, {d}]", ids.len()));
        return Err(Error::Shape { op: "embedding_backward", argument: "d_rows", actual, expected });
    }
    backend_of(d_table)?.embedding_backward(d_table, ids, &d_rows.contiguous()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::WeightDtype;
    use crate::testing::{assert_close, check_backward, random, stored};
    use candle_core::Device;

    const IDS: [u32; 4] = [5, 0, 5, 5];

    fn reference(table: &Tensor) -> candle_core::Result<Tensor> {
        table.index_select(&Tensor::new(&IDS, table.device())?, 0)
    }

    #[test]
    fn gradients_agree_with_the_formula_and_finite_differences() {
        check_backward(
            &[random(&[6, 3], 1)],
            |args| reference(&args[0]),
            |args| embedding(&Parameter::Tensor(args[0].clone()), &IDS),
            |args, dy| {
                let d_table = args[0].zeros_like()?;
                embedding_backward(&d_table, &IDS, dy)?;
                Ok(vec![d_table])
            },
        );
    }

    #[test]
    fn gradients_are_added_to_what_is_there() {
        let (d_table, d_rows) = (random(&[6, 3], 1), random(&[4, 3], 2));
        let alone = d_table.zeros_like().unwrap();
        embedding_backward(&alone, &IDS, &d_rows).unwrap();
        let expected = (&d_table + &alone).unwrap();
        embedding_backward(&d_table, &IDS, &d_rows).unwrap();
        assert_close(&d_table, &expected, 0.0);
    }

    #[test]
    fn rows_of_a_stored_table_are_its_dequantized_values() {
        let table = stored(&random(&[6, 3], 1), WeightDtype::BF16);
        let expected = reference(&table.to_tensor(&Device::Cpu).unwrap()).unwrap();
        let table = Parameter::Stored(table);
        assert_close(&embedding(&table, &IDS).unwrap(), &expected, 0.0);
        let message = embedding(&table, &[6]).unwrap_err().to_string();
        assert!(message.starts_with("token id 6"), "{message}");
    }
}
