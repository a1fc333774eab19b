//! safetensors writer: f32 tensors streamed to a file that appears when complete, and header entries of any dtype.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde_json::{Map, Value, json};

use crate::dtype::WeightDtype;
use crate::error::{Error, Result};
use crate::host::host_slice;

/// Writes one safetensors file, f32, in the order given, streaming.
///
/// Equal tensors give equal bytes. The file is flushed, not synced to disk.
///
/// # Errors
/// [`Error::Io`], and candle's error for a tensor that cannot be read as f32.
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)> + Clone,
) -> Result<()> {
    let shapes = tensors.clone().map(|(name, tensor)| (name, tensor.dims()));
    let mut writer = SafetensorsWriter::create(path, shapes)?;
    for (_, tensor) in tensors {
        writer.write(tensor)?;
    }
    writer.finish()
}

/// Streaming writer of f32 tensors. The data go to a `.partial` file, which is renamed when complete and removed otherwise.
///
/// Source: the safetensors format: a little-endian u64 header length, a JSON header, the data.
#[derive(Debug)]
pub struct SafetensorsWriter {
    path: PathBuf,
    /// Path during writing; `path` itself for a pipe or a device.
    staging_path: PathBuf,
    file: BufWriter<File>,
    /// Number of values not yet written.
    remaining: usize,
}

impl SafetensorsWriter {
    /// Creates the file and writes the header of tensors with these names and shapes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create<'a>(
        path: &Path,
        shapes: impl Iterator<Item = (&'a str, &'a [usize])> + Clone,
    ) -> Result<Self> {
        let remaining = shapes.clone().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        let is_special = path.exists() && !path.is_file();
        let staging_path = if is_special { path.to_owned() } else { path.with_added_extension("partial") };
        let file = File::create(&staging_path).map_err(Error::io(&staging_path, "creating"))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let mut writer = Self { path: path.to_owned(), staging_path, file, remaining };
        let header =
            header(shapes.map(|(name, shape)| HeaderEntry::unquantized(name, shape, WeightDtype::F32)));
        writer.write_bytes(&(header.len() as u64).to_le_bytes())?;
        writer.write_bytes(header.as_bytes())?;
        Ok(writer)
    }

    /// Appends values, row-major, in the order of the tensors.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Shape`] for too many values, and candle's error for a tensor that cannot be read as f32.
    pub fn write(&mut self, values: &Tensor) -> Result<()> {
        let values = as_f32(values)?;
        let values = host_slice(&values)?;
        self.remaining = self.remaining.checked_sub(values.len()).ok_or_else(|| self.wrong(values.len()))?;
        for chunk in values.chunks(1 << 14) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.write_bytes(&bytes)?;
        }
        Ok(())
    }

    /// Flushes and renames the file.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Shape`] when values are missing.
    pub fn finish(mut self) -> Result<()> {
        if self.remaining > 0 {
            return Err(self.wrong(0));
        }
        self.file.flush().map_err(Error::io(&self.path, "writing"))?;
        if self.staging_path == self.path {
            return Ok(());
        }
        std::fs::rename(&self.staging_path, &self.path).map_err(Error::io(&self.path, "renaming to"))
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path, "writing"))
    }

    fn wrong(&self, given: usize) -> Error {
        let (actual, expected) =
            (format!("{given} values"), format!("the {} that are missing", self.remaining));
        Error::Shape { op: "writing safetensors", argument: "values", actual, expected }
    }
}

impl Drop for SafetensorsWriter {
    fn drop(&mut self) {
        if self.staging_path != self.path {
            // nothing is left after the rename, and a file that cannot be removed does no harm
            let _ = std::fs::remove_file(&self.staging_path);
        }
    }
}

fn as_f32(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_dtype(candle_core::DType::F32)?.contiguous()?)
}

/// Header entry of a tensor.
pub(crate) struct HeaderEntry<'a> {
    pub(crate) name: Cow<'a, str>,
    /// Dtype as safetensors spells it.
    pub(crate) dtype: &'static str,
    pub(crate) shape: Cow<'a, [usize]>,
    pub(crate) bytes: usize,
}

impl<'a> HeaderEntry<'a> {
    /// Entry of an unquantized tensor.
    pub(crate) fn unquantized(name: &'a str, shape: &'a [usize], dtype: WeightDtype) -> Self {
        let dtype_name = match dtype {
            WeightDtype::F16 => "F16",
            WeightDtype::BF16 => "BF16",
            _ => "F32",
        };
        let bytes = dtype.block_bytes() * shape.iter().product::<usize>();
        Self { name: name.into(), dtype: dtype_name, shape: shape.into(), bytes }
    }
}

/// Header text of tensors in the order of their data, padded to 8 bytes.
pub(crate) fn header<'a>(tensors: impl Iterator<Item = HeaderEntry<'a>>) -> String {
    let mut entries = Map::new();
    // transformers refuses a file without this entry
    entries.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0;
    for HeaderEntry { name, dtype, shape, bytes } in tensors {
        let end = offset + bytes;
        entries.insert(
            name.into_owned(),
            json!({ "dtype": dtype, "shape": shape, "data_offsets": [offset, end] }),
        );
        offset = end;
    }
    let mut text = Value::Object(entries).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len())); // data starts aligned
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn chunks_give_the_bytes_of_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (random(&[2, 3, 5], 1), random(&[4], 2));
        let (whole, chunks) = (dir.path().join("whole"), dir.path().join("chunks"));
        write_safetensors(&whole, [("a", &a), ("b", &b)].into_iter()).unwrap();
        let mut writer =
            SafetensorsWriter::create(&chunks, [("a", a.dims()), ("b", b.dims())].into_iter()).unwrap();
        for chunk in [a.get(0).unwrap(), a.get(1).unwrap(), b] {
            writer.write(&chunk).unwrap();
        }
        assert!(writer.write(&a).unwrap_err().to_string().contains("30 values"));
        writer.finish().unwrap();
        assert_eq!(std::fs::read(whole).unwrap(), std::fs::read(chunks).unwrap());
    }

    #[test]
    fn a_file_that_lacks_values_is_an_error_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let shape: &[usize] = &[3];
        let writer = SafetensorsWriter::create(&dir.path().join("a"), [("a", shape)].into_iter()).unwrap();
        let error = writer.finish().unwrap_err().to_string();
        assert!(error.contains("the 3 that are missing"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
