//! Values of tensors in another form: rounded, quantized, widened.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::dtype::WeightDtype;
use crate::error::Result;
use crate::kernels::cpu::quantize::nf4::Nf4;
use crate::kernels::cpu::quantize::{self, QuantizeError};
use crate::storage::StoredTensor;

impl StoredTensor {
    /// All values of a tensor in memory of their own, rounded to a form whose blocks fill the rows.
    ///
    /// # Errors
    /// When a value does not go into the form.
    pub(crate) fn from_f32(
        values: &[f32],
        shape: &[usize],
        dtype: WeightDtype,
    ) -> Result<Self, QuantizeError> {
        let bytes = match dtype {
            WeightDtype::F32 | WeightDtype::F16 | WeightDtype::BF16 => {
                quantize::convert_float(dtype, values)?
            }
            WeightDtype::Nf4 => Nf4::quantize(values)?.blocks(),
            _ => quantize::quantize(dtype, values)?,
        };
        Ok(Self::owned(bytes, dtype, shape))
    }

    /// A copy as an f32 tensor.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.to_f32(), self.shape(), device)?)
    }

    /// The index of the first value that is infinite or not a number, counted along rows.
    pub fn first_non_finite(&self) -> Option<usize> {
        let len = self.row_len();
        let in_row = |row: usize| {
            let mut values = vec![0f32; len];
            self.dequantize_rows(row..row + 1, &mut values);
            values.iter().position(|value| !value.is_finite()).map(|at| row * len + at)
        };
        (0..self.num_rows()).into_par_iter().find_map_first(in_row)
    }

    /// How far the tensor is from a `reference` of its shape: the root mean square of the differences over that of the
    /// reference's values. Infinite where a value is no number, or the reference is 0 and the tensor is not.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn relative_difference(&self, reference: &Self) -> f64 {
        assert_eq!(self.shape(), reference.shape(), "tensors of one shape are compared");
        let len = self.row_len();
        let of_row = |(found, expected): &mut (Vec<f32>, Vec<f32>), row: usize| {
            self.dequantize_rows(row..row + 1, found);
            reference.dequantize_rows(row..row + 1, expected);
            let pairs = found.iter().zip(&*expected).map(|(&a, &b)| (f64::from(a), f64::from(b)));
            pairs.fold([0.0, 0.0], |[error, square], (a, b)| [error + (a - b) * (a - b), square + b * b])
        };
        let rows =
            (0..self.num_rows()).into_par_iter().map_init(|| (vec![0f32; len], vec![0f32; len]), of_row);
        let rows: Vec<[f64; 2]> = rows.collect(); // summed in their order, for any number of threads
        let [error, square] = rows.iter().fold([0.0, 0.0], |[a, b], [error, square]| [a + error, b + square]);
        match (error / square).sqrt() {
            _ if error == 0.0 => 0.0,
            ratio if ratio.is_finite() => ratio,
            _ => f64::INFINITY,
        }
    }

    /// The same tensor rounded to a form whose blocks fill its rows; itself where it has that form.
    ///
    /// # Errors
    /// When a value does not go into the form.
    pub(crate) fn rounded(self, dtype: WeightDtype) -> Result<Self, QuantizeError> {
        match dtype {
            _ if dtype == self.dtype() => Ok(self),
            WeightDtype::F32 | WeightDtype::F16 | WeightDtype::BF16 | WeightDtype::Nf4 => {
                Self::from_f32(&self.to_f32(), self.shape(), dtype)
            }
            _ => self.quantized(dtype),
        }
    }

    /// The tensor in one of ggml's forms, row by row, so that only the result and a few rows are in memory.
    fn quantized(&self, dtype: WeightDtype) -> Result<Self, QuantizeError> {
        let len = self.row_len();
        let row_bytes = dtype.row_bytes(len).expect("blocks fill the rows");
        let mut bytes = vec![0; self.num_rows() * row_bytes];
        let row = |values: &mut Vec<f32>, (row, out): (usize, &mut [u8])| {
            self.dequantize_rows(row..row + 1, values);
            quantize::quantize_into(dtype, values, out).err().map(|refusal| refusal.after(row * len))
        };
        let rows = bytes.par_chunks_mut(row_bytes.max(1)).enumerate();
        let refused = rows.map_init(|| vec![0f32; len], row).find_map_first(|refusal| refusal);
        refused.map_or_else(|| Ok(Self::owned(bytes, dtype, self.shape())), Err)
    }
}
