//! Copy of one tensor from its file to another dtype, a chunk of rows at a time.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use super::{ConvertedTensor, nf4, rounding_error};
use crate::dtype::Precision;
use crate::dtype::WeightDtype;
use crate::error::{Error, Result};
use crate::host::host_slice;
use crate::kernels::cpu::dequantize::dequantize;
use crate::kernels::cpu::gemm::{Beta, MatMut, MatRef, Parallelism, matmul};
use crate::kernels::cpu::quantize::nf4::Nf4;
use crate::kernels::cpu::quantize::{QuantizeError, convert_float, quantize};
use crate::loading::refused;
use crate::source::LoraWeights;
use crate::storage::StoredTensor;
use crate::weights::Weights;

/// Values per chunk.
const BUFFER_VALUES: usize = 1 << 20;

/// Writes the tensor `name` to `out` in `dtype`, with `lora` merged.
///
/// # Errors
/// Those of both files, and [`Error::Unquantizable`].
pub(super) fn copy_tensor(
    weights: &Weights,
    name: &str,
    dtype: WeightDtype,
    lora: Option<&LoraWeights>,
    out: &mut (impl Write + ?Sized),
) -> Result<ConvertedTensor, CopyError> {
    let source = TensorReader::open(weights, name)?;
    let mut record = source.empty_record(name, dtype);
    if source.dtype == dtype && lora.is_none() {
        record.bytes = source.copy_bytes(out)?;
        return Ok(record);
    }
    source.for_each_chunk(lora, |from, values| {
        let refused = |refusal: QuantizeError| refused(source.path, name, dtype, refusal.after(from));
        let bytes = if dtype.is_quantized() { quantize(dtype, values) } else { convert_float(dtype, values) };
        let bytes = bytes.map_err(refused)?;
        let (squared_norm, squared_error) = rounding_error::squared_norm_and_error(dtype, values, &bytes);
        record.squared_norm += squared_norm;
        record.squared_error += squared_error;
        record.bytes += bytes.len() as u64;
        out.write_all(&bytes).map_err(CopyError::Output)
    })?;
    Ok(record)
}

/// Writes the tensor `name` to `out` in NF4, with `lora` merged. `other_dtype` is that of unquantized tensors. The whole
/// tensor is in memory: double quantization spans all of its blocks.
///
/// # Errors
/// As [`copy_tensor`].
pub(super) fn copy_tensor_nf4(
    weights: &Weights,
    name: &str,
    other_dtype: WeightDtype,
    lora: Option<&LoraWeights>,
    out: &mut dyn Write,
) -> Result<ConvertedTensor, CopyError> {
    let source = TensorReader::open(weights, name)?;
    let mut record = source.empty_record(name, WeightDtype::Nf4);
    let mut values = Vec::with_capacity(source.rows * source.row_len);
    source.for_each_chunk(lora, |_, chunk| {
        values.extend_from_slice(chunk);
        Ok(())
    })?;
    let tensor =
        Nf4::quantize(&values).map_err(|refusal| refused(source.path, name, WeightDtype::Nf4, refusal))?;
    record.bytes = nf4::write(&tensor, source.shape, other_dtype, out).map_err(CopyError::Output)?;
    (record.squared_norm, record.squared_error) =
        rounding_error::squared_norm_and_error(WeightDtype::Nf4, &values, &tensor.blocks());
    Ok(record)
}

/// Error of a copy, by side.
pub(super) enum CopyError {
    Input(Error),
    Output(std::io::Error),
}

impl From<Error> for CopyError {
    fn from(error: Error) -> Self {
        Self::Input(error)
    }
}

impl CopyError {
    /// The error, naming the output `path`.
    pub(super) fn at(self, path: &Path) -> Error {
        match self {
            Self::Input(error) => error,
            Self::Output(source) => Error::io(path, "writing")(source),
        }
    }
}

/// `values += scale * B[rows] A`, f32.
fn add_lora(values: &mut [f32], lora: &LoraWeights, rows: Range<usize>) -> Result<()> {
    let (rank, d_in) = lora.a.dims2()?;
    let (a, b) = (lora.a.contiguous()?, lora.b.contiguous()?);
    let (a, b) = (host_slice(&a)?, host_slice(&b)?);
    let scaled: Vec<f32> =
        b[rows.start * rank..rows.end * rank].iter().map(|x| x * lora.scale as f32).collect();
    let b = MatRef::new(&scaled, rows.len(), rank, rank);
    let sum = MatMut::new(values, rows.len(), d_in, d_in);
    matmul(sum, b, MatRef::new(&a, rank, d_in, d_in), Precision::F32, Beta::One, Parallelism::Pool);
    Ok(())
}

/// Reader of one tensor: its byte range in a file, or the assembled tensor when it is NF4.
struct TensorReader<'a> {
    path: &'a Path,
    start: u64,
    dtype: WeightDtype,
    shape: &'a [usize],
    rows: usize,
    row_len: usize,
    row_bytes: usize,
    nf4_tensor: Option<StoredTensor>,
}

impl<'a> TensorReader<'a> {
    /// Locates the tensor `name`.
    fn open(weights: &'a Weights, name: &str) -> Result<Self> {
        let (path, entry, dtype) = weights.locate(name)?;
        let row_len = entry.shape.last().copied().unwrap_or(1).max(1);
        let rows = entry.shape.iter().product::<usize>() / row_len;
        let row_bytes = entry.range.len().checked_div(rows).unwrap_or(0);
        let nf4_tensor = (dtype == WeightDtype::Nf4).then(|| weights.stored_tensor(name)).transpose()?;
        let (start, shape) = (entry.range.start as u64, &entry.shape[..]);
        Ok(Self { path, start, dtype, shape, rows, row_len, row_bytes, nf4_tensor })
    }

    /// Report with nothing written yet.
    fn empty_record(&self, name: &str, dtype: WeightDtype) -> ConvertedTensor {
        let (name, shape) = (name.to_owned(), self.shape.to_vec());
        ConvertedTensor { name, dtype, shape, bytes: 0, squared_norm: 0.0, squared_error: 0.0 }
    }

    /// Calls `on_chunk` with consecutive chunks of rows, widened to f32 and with `lora` merged: the index of the first value
    /// and the values.
    fn for_each_chunk(
        &self,
        lora: Option<&LoraWeights>,
        mut on_chunk: impl FnMut(usize, &[f32]) -> Result<(), CopyError>,
    ) -> Result<(), CopyError> {
        let step = (BUFFER_VALUES / self.row_len).max(1);
        let (mut file, mut bytes) = (self.file()?, Vec::new());
        let mut values = vec![0f32; step.min(self.rows) * self.row_len];
        for from in (0..self.rows).step_by(step) {
            let rows = from..(from + step).min(self.rows);
            let values = &mut values[..rows.len() * self.row_len];
            match &self.nf4_tensor {
                Some(tensor) => tensor.dequantize_rows(rows.clone(), values),
                None => {
                    bytes.resize(rows.len() * self.row_bytes, 0);
                    file.read_exact(&mut bytes).map_err(Error::io(self.path, "reading"))?;
                    dequantize(self.dtype, &bytes, values);
                }
            }
            if let Some(lora) = lora {
                add_lora(values, lora, rows)?;
            }
            on_chunk(from * self.row_len, values)?;
        }
        Ok(())
    }

    /// File, positioned at the first byte of the tensor.
    fn file(&self) -> Result<File> {
        let mut file = File::open(self.path).map_err(Error::io(self.path, "opening"))?;
        file.seek(SeekFrom::Start(self.start)).map_err(Error::io(self.path, "seeking"))?;
        Ok(file)
    }

    /// Copies the bytes unchanged; returns their number.
    fn copy_bytes(&self, out: &mut (impl Write + ?Sized)) -> Result<u64, CopyError> {
        let total = (self.rows * self.row_bytes) as u64;
        let mut file = self.file()?;
        let mut buffer = vec![0; (4 * BUFFER_VALUES).min(total as usize)];
        let mut left = total;
        while left > 0 {
            let part = &mut buffer[..(left as usize).min(4 * BUFFER_VALUES)];
            file.read_exact(part).map_err(Error::io(self.path, "reading"))?;
            out.write_all(part).map_err(CopyError::Output)?;
            left -= part.len() as u64;
        }
        Ok(total)
    }
}
