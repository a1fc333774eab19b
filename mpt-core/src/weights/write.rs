//! Writing safetensors files.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use candle_core::Tensor;
use serde_json::{Map, Value, json};

use super::format::Format;
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
    let entries = tensors.clone().map(|(name, tensor)| (name, tensor.dims()));
    let header = header(entries, Format::F32);
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

/// The header of a file of tensors of one form: name and shape of each, in the order of their data.
pub(super) fn header<'a>(tensors: impl Iterator<Item = (&'a str, &'a [usize])>, format: Format) -> String {
    let mut entries = Map::new();
    // transformers refuses a file without this mark
    entries.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0;
    for (name, shape) in tensors {
        let end = offset + format.block_bytes() * shape.iter().product::<usize>();
        let entry = json!({ "dtype": dtype_name(format), "shape": shape, "data_offsets": [offset, end] });
        entries.insert(name.to_owned(), entry);
        offset = end;
    }
    let mut text = Value::Object(entries).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len())); // data starts aligned
    text
}

/// A plain form as safetensors spells it.
fn dtype_name(format: Format) -> &'static str {
    match format {
        Format::F16 => "F16",
        Format::BF16 => "BF16",
        _ => "F32",
    }
}
