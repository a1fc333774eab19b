//! Conversion of stored tensors between dtypes, and comparison of their values.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::dtype::WeightDtype;
use crate::error::Result;
use crate::kernels::cpu::quantize::nf4::Nf4;
use crate::kernels::cpu::quantize::{self, QuantizeError};
use crate::storage::StoredTensor;

impl StoredTensor {
    /// Tensor of `shape` converted from f32 values. The blocks of `dtype` fill the rows.
    ///
    /// # Errors
    /// When `dtype` cannot hold a value.
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

    /// Copy as an f32 tensor on `device`.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.to_f32(), self.shape(), device)?)
    }

    /// Index of the first infinite or NaN value, row-major.
    pub fn first_non_finite(&self) -> Option<usize> {
        let len = self.row_len();
        let first_in_row = |row: usize| {
            let mut values = vec![0f32; len];
            self.dequantize_rows(row..row + 1, &mut values);
            values.iter().position(|value| !value.is_finite()).map(|at| row * len + at)
        };
        (0..self.num_rows()).into_par_iter().find_map_first(first_in_row)
    }

    /// RMS of the difference from `reference`, relative to the RMS of `reference`. Infinite for NaN values, and for a zero
    /// reference that differs.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn relative_rms_error(&self, reference: &Self) -> f64 {
        assert_eq!(self.shape(), reference.shape(), "tensors of one shape are compared");
        let len = self.row_len();
        let row_sums = |(found, expected): &mut (Vec<f32>, Vec<f32>), row: usize| {
            self.dequantize_rows(row..row + 1, found);
            reference.dequantize_rows(row..row + 1, expected);
            let pairs = found.iter().zip(&*expected).map(|(&a, &b)| (f64::from(a), f64::from(b)));
            pairs.fold([0.0, 0.0], |[error, square], (a, b)| [error + (a - b) * (a - b), square + b * b])
        };
        let rows =
            (0..self.num_rows()).into_par_iter().map_init(|| (vec![0f32; len], vec![0f32; len]), row_sums);
        let rows: Vec<[f64; 2]> = rows.collect(); // summed in row order, for any number of threads
        let [error, square] = rows.iter().fold([0.0, 0.0], |[a, b], [error, square]| [a + error, b + square]);
        match (error / square).sqrt() {
            _ if error == 0.0 => 0.0,
            ratio if ratio.is_finite() => ratio,
            _ => f64::INFINITY,
        }
    }

    /// Converts to `dtype`, whose blocks fill the rows; no copy when it already has that dtype.
    ///
    /// # Errors
    /// When `dtype` cannot hold a value.
    pub(crate) fn into_dtype(self, dtype: WeightDtype) -> Result<Self, QuantizeError> {
        match dtype {
            _ if dtype == self.dtype() => Ok(self),
            WeightDtype::F32 | WeightDtype::F16 | WeightDtype::BF16 | WeightDtype::Nf4 => {
                Self::from_f32(&self.to_f32(), self.shape(), dtype)
            }
            _ => self.quantized(dtype),
        }
    }

    /// Quantizes to one of ggml's dtypes row by row: only the result and a few rows are in memory.
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
