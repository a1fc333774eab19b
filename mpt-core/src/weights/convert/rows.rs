//! One tensor from its file to another form, a few rows at a time.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;

use crate::error::{Error, Result};
use crate::kernels::cpu::gemm::{Mat, MatMut, Products, Threads, Write as Into, matmul};
use crate::kernels::cpu::{narrow, widen};
use crate::lora::Lora;
use crate::ops::host_slice;
use crate::weights::format::Format;
use crate::weights::open::Weights;

/// Values in memory at once.
const BUFFER_VALUES: usize = 1 << 20;

/// Writes the tensor `name` to `out` in `format`, with what an adapter adds to it. Returns the number of bytes.
///
/// # Errors
/// Those of both files.
pub(super) fn copy(
    weights: &Weights,
    name: &str,
    format: Format,
    lora: Option<&Lora>,
    out: &mut (impl Write + ?Sized),
) -> Result<u64, CopyError> {
    let source = Source::open(weights, name)?;
    if source.format == format && lora.is_none() {
        return source.copy_bytes(out);
    }
    let step = (BUFFER_VALUES / source.row_len).max(1);
    let (mut file, mut written) = (source.file()?, 0);
    let mut bytes = Vec::new();
    let mut values = vec![0f32; step.min(source.rows) * source.row_len];
    for from in (0..source.rows).step_by(step) {
        let rows = from..(from + step).min(source.rows);
        let values = &mut values[..rows.len() * source.row_len];
        bytes.resize(rows.len() * source.row_bytes, 0);
        file.read_exact(&mut bytes).map_err(Error::io(source.path, "reading"))?;
        widen::widen(source.format, &bytes, values);
        if let Some(lora) = lora {
            add_rows(values, lora, rows).map_err(Error::from)?;
        }
        let narrowed = narrow::narrow(format, values);
        out.write_all(&narrowed).map_err(CopyError::Output)?;
        written += narrowed.len() as u64;
    }
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
    pub(super) fn at(self, path: &std::path::Path) -> Error {
        match self {
            Self::Input(error) => error,
            Self::Output(source) => Error::io(path, "writing")(source),
        }
    }
}

/// `values += scale * B[rows] A`
fn add_rows(values: &mut [f32], lora: &Lora, rows: Range<usize>) -> candle_core::Result<()> {
    let (rank, d_in) = lora.a.dims2()?;
    let (a, b) = (lora.a.contiguous()?, lora.b.contiguous()?);
    let (a, b) = (host_slice(&a)?, host_slice(&b)?);
    let scaled: Vec<f32> =
        b[rows.start * rank..rows.end * rank].iter().map(|x| x * lora.scale as f32).collect();
    let b = Mat::new(&scaled, rows.len(), rank, rank);
    let sum = MatMut::new(values, rows.len(), d_in, d_in);
    matmul(sum, b, Mat::new(&a, rank, d_in, d_in), Products::F32, Into::Add, Threads::Pool);
    Ok(())
}

/// A tensor's place in its file.
struct Source<'a> {
    path: &'a std::path::Path,
    start: u64,
    format: Format,
    rows: usize,
    row_len: usize,
    row_bytes: usize,
}

impl<'a> Source<'a> {
    fn open(weights: &'a Weights, name: &str) -> Result<Self> {
        let (path, entry, format) = weights.place(name)?;
        let row_len = entry.shape.last().copied().unwrap_or(1).max(1);
        let rows = entry.shape.iter().product::<usize>() / row_len;
        let row_bytes = entry.range.len().checked_div(rows).unwrap_or(0);
        Ok(Self { path, start: entry.range.start as u64, format, rows, row_len, row_bytes })
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
