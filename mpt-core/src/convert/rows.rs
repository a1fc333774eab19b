//! One tensor from its file to another form, a few rows at a time.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use super::{Written, measure, nf4};
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

/// Values in memory at once.
const BUFFER_VALUES: usize = 1 << 20;

/// Writes the tensor `name` to `out` in `format`, with what an adapter adds to it.
///
/// # Errors
/// Those of both files, and [`Error::Unquantizable`].
pub(super) fn copy(
    weights: &Weights,
    name: &str,
    format: WeightDtype,
    lora: Option<&LoraWeights>,
    out: &mut (impl Write + ?Sized),
) -> Result<Written, CopyError> {
    let source = Source::open(weights, name)?;
    let mut written = source.written(name, format);
    if source.format == format && lora.is_none() {
        written.bytes = source.copy_bytes(out)?;
        return Ok(written);
    }
    source.each_piece(lora, |from, values| {
        let refused = |refusal: QuantizeError| refused(source.path, name, format, refusal.after(from));
        let bytes =
            if format.is_quantized() { quantize(format, values) } else { convert_float(format, values) };
        let bytes = bytes.map_err(refused)?;
        let (squares, squared_error) = measure::squares(format, values, &bytes);
        written.squares += squares;
        written.squared_error += squared_error;
        written.bytes += bytes.len() as u64;
        out.write_all(&bytes).map_err(CopyError::Output)
    })?;
    Ok(written)
}

/// Writes the parts of the tensor `name` in NF4 to `out`, with what an adapter adds to it; `other` is the form of what is
/// not quantized. The whole tensor is in memory meanwhile: its scales depend on each other.
///
/// # Errors
/// As [`copy`].
pub(super) fn copy_nf4(
    weights: &Weights,
    name: &str,
    other: WeightDtype,
    lora: Option<&LoraWeights>,
    out: &mut dyn Write,
) -> Result<Written, CopyError> {
    let source = Source::open(weights, name)?;
    let mut written = source.written(name, WeightDtype::Nf4);
    let mut values = Vec::with_capacity(source.rows * source.row_len);
    source.each_piece(lora, |_, piece| {
        values.extend_from_slice(piece);
        Ok(())
    })?;
    let tensor =
        Nf4::quantize(&values).map_err(|refusal| refused(source.path, name, WeightDtype::Nf4, refusal))?;
    written.bytes = nf4::write(&tensor, source.shape, other, out).map_err(CopyError::Output)?;
    (written.squares, written.squared_error) = measure::squares(WeightDtype::Nf4, &values, &tensor.blocks());
    Ok(written)
}

/// What can go wrong on either side.
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
    /// The error with the output's path.
    pub(super) fn at(self, path: &Path) -> Error {
        match self {
            Self::Input(error) => error,
            Self::Output(source) => Error::io(path, "writing")(source),
        }
    }
}

/// `values += scale * B[rows] A`
fn add_rows(values: &mut [f32], lora: &LoraWeights, rows: Range<usize>) -> Result<()> {
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

/// A tensor's place in its file, or the tensor itself where files keep it in parts.
struct Source<'a> {
    path: &'a Path,
    start: u64,
    format: WeightDtype,
    shape: &'a [usize],
    rows: usize,
    row_len: usize,
    row_bytes: usize,
    joined: Option<StoredTensor>,
}

impl<'a> Source<'a> {
    fn open(weights: &'a Weights, name: &str) -> Result<Self> {
        let (path, entry, format) = weights.place(name)?;
        let row_len = entry.shape.last().copied().unwrap_or(1).max(1);
        let rows = entry.shape.iter().product::<usize>() / row_len;
        let row_bytes = entry.range.len().checked_div(rows).unwrap_or(0);
        let joined = (format == WeightDtype::Nf4).then(|| weights.as_stored(name)).transpose()?;
        let (start, shape) = (entry.range.start as u64, &entry.shape[..]);
        Ok(Self { path, start, format, shape, rows, row_len, row_bytes, joined })
    }

    /// A record of nothing written yet.
    fn written(&self, name: &str, format: WeightDtype) -> Written {
        let (name, shape) = (name.to_owned(), self.shape.to_vec());
        Written { name, format, shape, bytes: 0, squares: 0.0, squared_error: 0.0 }
    }

    /// Calls `piece` with the values of some rows after the other, and the index of their first.
    fn each_piece(
        &self,
        lora: Option<&LoraWeights>,
        mut piece: impl FnMut(usize, &[f32]) -> Result<(), CopyError>,
    ) -> Result<(), CopyError> {
        let step = (BUFFER_VALUES / self.row_len).max(1);
        let (mut file, mut bytes) = (self.file()?, Vec::new());
        let mut values = vec![0f32; step.min(self.rows) * self.row_len];
        for from in (0..self.rows).step_by(step) {
            let rows = from..(from + step).min(self.rows);
            let values = &mut values[..rows.len() * self.row_len];
            match &self.joined {
                Some(tensor) => tensor.dequantize_rows(rows.clone(), values),
                None => {
                    bytes.resize(rows.len() * self.row_bytes, 0);
                    file.read_exact(&mut bytes).map_err(Error::io(self.path, "reading"))?;
                    dequantize(self.format, &bytes, values);
                }
            }
            if let Some(lora) = lora {
                add_rows(values, lora, rows)?;
            }
            piece(from * self.row_len, values)?;
        }
        Ok(())
    }

    /// The file, at the tensor's first byte.
    fn file(&self) -> Result<File> {
        let mut file = File::open(self.path).map_err(Error::io(self.path, "opening"))?;
        file.seek(SeekFrom::Start(self.start)).map_err(Error::io(self.path, "seeking"))?;
        Ok(file)
    }

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
