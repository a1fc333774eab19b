//! GGUF file: metadata and tensor infos, checked; the tensor data stay mapped.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::DEFAULT_ALIGNMENT;
use super::metadata::{GgufMetadata, GgufValue};
use super::reader::GgufReader;
use super::types::dtype_of_ggml_type;
use crate::bounded_file::refuse_pointer;
use crate::error::{Error, Result, damaged};
use crate::mmap::map;
use crate::quoted::quoted;
use crate::weights::file::{FileTensor, MappedFile};
use crate::weights::limits::{check_name, elements};

/// Longest key or name in bytes, before names are checked.
const MAX_STRING_BYTES: usize = 1 << 16;

/// GGUF file; tensors have their GGUF names.
pub(crate) struct GgufFile {
    pub(crate) file: MappedFile,
    pub(crate) metadata: GgufMetadata,
}

/// Opens a GGUF file and checks metadata and tensor infos. The data are not read.
///
/// # Errors
/// [`Error::WeightsFile`] with the byte offset.
pub(crate) fn open(path: &Path) -> Result<GgufFile> {
    let map = Arc::new(map(path)?);
    refuse_pointer(path, &map)?;
    let mut reader = GgufReader { path, map: &map, at: 0 };
    let (tensor_count, pair_count) = reader.header()?;
    let metadata = read_metadata(&mut reader, pair_count)?;
    refuse_split(path, &metadata)?;
    let alignment = alignment(&reader, &metadata)?;
    let infos = (0..tensor_count).map(|_| read_tensor_info(&mut reader)).collect::<Result<Vec<_>>>()?;
    let data = reader.at.next_multiple_of(alignment);
    let tensors =
        infos.into_iter().map(|info| info.locate(&reader, data, alignment)).collect::<Result<Vec<_>>>()?;
    refuse_overlaps(&reader, &tensors)?;
    Ok(GgufFile { file: MappedFile { path: path.to_owned(), map: Arc::clone(&map), tensors }, metadata })
}

fn read_metadata(reader: &mut GgufReader<'_>, pair_count: u64) -> Result<GgufMetadata> {
    let mut metadata = GgufMetadata::default();
    for _ in 0..pair_count {
        let at = reader.at;
        let key = reader.string(MAX_STRING_BYTES)?;
        if metadata.values.contains_key(&key) {
            return Err(reader.wrong(at, format!("key `{}` comes twice", quoted(&key))));
        }
        metadata.values.insert(key, reader.value()?);
    }
    Ok(metadata)
}

/// Refuses one part of a split model.
fn refuse_split(path: &Path, metadata: &GgufMetadata) -> Result<()> {
    match metadata.int("split.count") {
        Some(count) if count > 1 => {
            let number = metadata.int("split.no").unwrap_or(0).saturating_add(1);
            let expected = "one whole file; join the parts with llama.cpp's `llama-gguf-split --merge`";
            Err(damaged(path, format!("part {number} of a file split in {count}"), expected))
        }
        _ => Ok(()),
    }
}

/// Alignment of tensor data in bytes, a power of two.
fn alignment(reader: &GgufReader<'_>, metadata: &GgufMetadata) -> Result<usize> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&GgufValue::Int(n)) if (1..=1 << 20).contains(&n) && n & (n - 1) == 0 => Ok(n as usize),
        Some(GgufValue::Int(n)) => Err(reader.wrong(reader.at, format!("general.alignment {n}"))),
        Some(_) => Err(reader.wrong(reader.at, "general.alignment, which is no integer".to_owned())),
    }
}

/// Refuses duplicate names and overlapping data.
fn refuse_overlaps(reader: &GgufReader<'_>, tensors: &[FileTensor]) -> Result<()> {
    let mut names = BTreeSet::new();
    if let Some(twice) = tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
        return Err(reader.wrong(reader.at, format!("tensor `{}` comes twice", twice.name)));
    }
    let mut ranges: Vec<_> =
        tensors.iter().map(|tensor| &tensor.range).filter(|range| !range.is_empty()).collect();
    ranges.sort_by_key(|range| range.start);
    match ranges.windows(2).find(|pair| pair[1].start < pair[0].end) {
        Some(pair) => Err(reader.wrong(pair[1].start, "tensors that overlap".to_owned())),
        None => Ok(()),
    }
}

/// Tensor info of the header, `gguf_tensor_info_t`.
struct GgufTensorInfo {
    /// Offset of the info in the file.
    at: usize,
    name: String,
    /// Row-major shape; the file lists dimensions innermost first.
    shape: Vec<usize>,
    ggml_type: u32,
    /// Offset of the data from the start of the data section.
    offset: u64,
}

fn read_tensor_info(reader: &mut GgufReader<'_>) -> Result<GgufTensorInfo> {
    let at = reader.at;
    let name = reader.string(MAX_STRING_BYTES)?;
    check_name(reader.path, &name)?;
    let dims = reader.u32()?;
    if !(1..=4).contains(&dims) {
        return Err(reader.wrong(at, format!("tensor `{name}` of {dims} dimensions")));
    }
    let mut shape = (0..dims).map(|_| read_dimension(reader, at)).collect::<Result<Vec<_>>>()?;
    shape.reverse();
    Ok(GgufTensorInfo { at, name, shape, ggml_type: reader.u32()?, offset: reader.u64()? })
}

fn read_dimension(reader: &mut GgufReader<'_>, at: usize) -> Result<usize> {
    let n = reader.u64()?;
    let fits = usize::try_from(n).ok().filter(|&n| n <= isize::MAX as usize);
    fits.ok_or_else(|| reader.wrong(at, format!("a dimension of {n}")))
}

impl GgufTensorInfo {
    /// Tensor with its byte range; `data` is the start of the data section.
    fn locate(self, reader: &GgufReader<'_>, data: usize, alignment: usize) -> Result<FileTensor> {
        let wrong = |what: String| reader.wrong(self.at, format!("tensor `{}`: {what}", self.name));
        let dtype = dtype_of_ggml_type(self.ggml_type).ok_or_else(|| self.unsupported(reader.path))?;
        let whole_blocks = self.shape.last().is_some_and(|len| len.is_multiple_of(dtype.block_len()));
        let elements = elements(&self.shape).filter(|_| whole_blocks);
        let bytes = elements.map(|n| n / dtype.block_len() * dtype.block_bytes());
        let bytes = bytes.ok_or_else(|| wrong(format!("impossible shape {:?} of {dtype}", self.shape)))?;
        let offset = usize::try_from(self.offset).ok().filter(|offset| offset.is_multiple_of(alignment));
        let offset = offset.ok_or_else(|| wrong(format!("offset {} is not aligned", self.offset)))?;
        let range = data_range(data, offset, bytes, reader.map.len());
        let range =
            range.ok_or_else(|| wrong(format!("{bytes} bytes at offset {offset} lie beyond the end")))?;
        let dtype_name = dtype.name().to_uppercase();
        Ok(FileTensor { name: self.name, dtype_name, dtype: Some(dtype), shape: self.shape, range })
    }

    fn unsupported(&self, path: &Path) -> Error {
        Error::TensorDtype {
            path: path.to_owned(),
            name: self.name.clone(),
            actual: format!("ggml type {}", self.ggml_type),
            expected: "F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K or Q6_K; quantize the model again to one of them",
        }
    }
}

/// Byte range of a tensor; `None` past `end`, the size of the file.
fn data_range(data: usize, offset: usize, bytes: usize, end: usize) -> Option<Range<usize>> {
    let start = data.checked_add(offset)?;
    let range = start..start.checked_add(bytes)?;
    (range.end <= end).then_some(range)
}
