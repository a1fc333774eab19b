//! Writing safetensors files.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde_json::{Map, Value, json};

use crate::dtype::WeightDtype;
use crate::error::{Error, Result};
use crate::host::host_slice;

/// Writes tensors as one safetensors file, f32, in the order given, without holding the file in memory.
///
/// The same tensors give the same bytes. The file is flushed to the system, not synced to the disk.
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

/// A safetensors file of f32 tensors whose values come piece by piece. It has its name only when it is whole: until then
/// it is written beside it, and goes away if it is not finished.
///
/// Source: the safetensors format: a little-endian u64 header length, a JSON header, the data.
#[derive(Debug)]
pub struct SafetensorsWriter {
    path: PathBuf,
    /// Where the bytes are until the end; `path` itself where that is a pipe or a device.
    aside: PathBuf,
    file: BufWriter<File>,
    /// Values that are still to come.
    missing: usize,
}

impl SafetensorsWriter {
    /// Starts a file of tensors of these names and shapes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create<'a>(
        path: &Path,
        shapes: impl Iterator<Item = (&'a str, &'a [usize])> + Clone,
    ) -> Result<Self> {
        let missing = shapes.clone().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        let is_special = path.exists() && !path.is_file();
        let aside = if is_special { path.to_owned() } else { path.with_added_extension("partial") };
        let file = File::create(&aside).map_err(Error::io(&aside, "creating"))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let mut writer = Self { path: path.to_owned(), aside, file, missing };
        let header = header(shapes.map(|(name, shape)| Entry::plain(name, shape, WeightDtype::F32)));
        writer.put(&(header.len() as u64).to_le_bytes())?;
        writer.put(header.as_bytes())?;
        Ok(writer)
    }

    /// Writes the next values, in the order of the tensors and of their elements.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Shape`] when there are more than the tensors have, and candle's error for a tensor that
    /// cannot be read as f32.
    pub fn write(&mut self, values: &Tensor) -> Result<()> {
        let values = as_f32(values)?;
        let values = host_slice(&values)?;
        self.missing = self.missing.checked_sub(values.len()).ok_or_else(|| self.wrong(values.len()))?;
        for chunk in values.chunks(1 << 14) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.put(&bytes)?;
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Shape`] when values are missing.
    pub fn finish(mut self) -> Result<()> {
        if self.missing > 0 {
            return Err(self.wrong(0));
        }
        self.file.flush().map_err(Error::io(&self.path, "writing"))?;
        if self.aside == self.path {
            return Ok(());
        }
        std::fs::rename(&self.aside, &self.path).map_err(Error::io(&self.path, "renaming to"))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path, "writing"))
    }

    fn wrong(&self, given: usize) -> Error {
        let (actual, expected) =
            (format!("{given} values"), format!("the {} that are missing", self.missing));
        Error::Shape { op: "writing safetensors", argument: "values", actual, expected }
    }
}

impl Drop for SafetensorsWriter {
    fn drop(&mut self) {
        if self.aside != self.path {
            // after a rename there is nothing, and what cannot be removed does no harm
            let _ = std::fs::remove_file(&self.aside);
        }
    }
}

fn as_f32(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_dtype(candle_core::DType::F32)?.contiguous()?)
}

/// What a header says of a tensor.
pub(crate) struct Entry<'a> {
    pub(crate) name: Cow<'a, str>,
    /// The dtype as safetensors spells it.
    pub(crate) dtype: &'static str,
    pub(crate) shape: Cow<'a, [usize]>,
    pub(crate) bytes: usize,
}

impl<'a> Entry<'a> {
    /// A tensor of a plain form.
    pub(crate) fn plain(name: &'a str, shape: &'a [usize], format: WeightDtype) -> Self {
        let dtype = match format {
            WeightDtype::F16 => "F16",
            WeightDtype::BF16 => "BF16",
            _ => "F32",
        };
        let bytes = format.block_bytes() * shape.iter().product::<usize>();
        Self { name: name.into(), dtype, shape: shape.into(), bytes }
    }
}

/// The header of a file of these tensors, in the order of their data.
pub(crate) fn header<'a>(tensors: impl Iterator<Item = Entry<'a>>) -> String {
    let mut entries = Map::new();
    // transformers refuses a file without this mark
    entries.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0;
    for Entry { name, dtype, shape, bytes } in tensors {
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
    fn pieces_give_the_bytes_of_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (random(&[2, 3, 5], 1), random(&[4], 2));
        let (whole, pieces) = (dir.path().join("whole"), dir.path().join("pieces"));
        write_safetensors(&whole, [("a", &a), ("b", &b)].into_iter()).unwrap();
        let mut writer =
            SafetensorsWriter::create(&pieces, [("a", a.dims()), ("b", b.dims())].into_iter()).unwrap();
        for piece in [a.get(0).unwrap(), a.get(1).unwrap(), b] {
            writer.write(&piece).unwrap();
        }
        assert!(writer.write(&a).unwrap_err().to_string().contains("30 values"));
        writer.finish().unwrap();
        assert_eq!(std::fs::read(whole).unwrap(), std::fs::read(pieces).unwrap());
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
