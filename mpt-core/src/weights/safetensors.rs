//! Reading the header of a safetensors file.

use std::path::Path;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};

use super::format::Format;
use super::mmap::{FileTensor, MappedFile, damaged, map};
use crate::error::Result;

/// Opens a safetensors file; the whole header is checked, the data not read.
///
/// # Errors
/// [`Error::WeightsFile`](crate::Error::WeightsFile) for a damaged or hostile header.
pub(crate) fn open(path: &Path) -> Result<MappedFile> {
    let map = Arc::new(map(path)?);
    let (header_len, metadata) = SafeTensors::read_metadata(&map)
        .map_err(|error| damaged(path, error.to_string(), "a safetensors file; fetch or write it again"))?;
    let data = 8 + header_len;
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let range = data + start..data + end;
        if range.end > map.len() {
            let found = format!("tensor `{name}` ends at byte {} of {}", range.end, map.len());
            return Err(damaged(path, found, "all data inside the file; fetch it again"));
        }
        tensors.push(FileTensor {
            name,
            dtype: format!("{:?}", info.dtype),
            format: format_of(info.dtype),
            shape: info.shape.clone(),
            range,
        });
    }
    Ok(MappedFile { path: path.to_owned(), map, tensors })
}

fn format_of(dtype: Dtype) -> Option<Format> {
    match dtype {
        Dtype::F32 => Some(Format::F32),
        Dtype::F16 => Some(Format::F16),
        Dtype::BF16 => Some(Format::BF16),
        _ => None,
    }
}
