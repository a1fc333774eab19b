//! Writing safetensors files.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use candle_core::Tensor;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::ops::host_slice;

/// Writes tensors as one safetensors file, f32, in the order given, without holding the file in memory.
///
/// The same tensors give the same bytes. The file is flushed to the system, not synced to the disk.
///
/// # Errors
/// [`Error::Io`], and candle's error for a tensor that cannot be read as f32.
///
/// Source: the safetensors format: a little-endian u64 header length, a JSON header, the data.
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)> + Clone,
) -> Result<()> {
    let header = header(tensors.clone());
    let file = File::create(path).map_err(Error::io(path, "creating"))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path, "writing"));
    put(&(header.len() as u64).to_le_bytes())?;
    put(header.as_bytes())?;
    for (_, tensor) in tensors {
        let tensor = as_f32(tensor)?;
        for chunk in host_slice(&tensor)?.chunks(1 << 14) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
            put(&bytes)?;
        }
    }
    file.flush().map_err(Error::io(path, "writing"))
}

fn as_f32(tensor: &Tensor) -> Result<Cow<'_, Tensor>> {
    let tensor = tensor.to_dtype(candle_core::DType::F32)?;
    Ok(Cow::Owned(tensor.contiguous()?))
}

fn header<'a>(tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> String {
    let mut entries = Map::new();
    // transformers refuses a file without this mark
    entries.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0;
    for (name, tensor) in tensors {
        let end = offset + 4 * tensor.elem_count();
        let entry = json!({ "dtype": "F32", "shape": tensor.dims(), "data_offsets": [offset, end] });
        entries.insert(name.to_owned(), entry);
        offset = end;
    }
    let mut text = Value::Object(entries).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len())); // data starts aligned
    text
}
