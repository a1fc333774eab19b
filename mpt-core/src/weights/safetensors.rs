//! safetensors reader: parses and checks the header; the data stay mapped.
//!
//! The header is deserialized entry by entry, so its memory is bounded by the limit on tensors.
//!
//! Source: the safetensors format: a little-endian u64 header length, a JSON header, the data without gaps.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::file::{FileTensor, MappedFile};
use super::limits::{MAX_DIMS, MAX_TENSORS, check_name, elements};
use crate::bounded_file::refuse_pointer;
use crate::dtype::WeightDtype;
use crate::error::damaged;
use crate::error::{Error, Result, damaged_by};
use crate::mmap::map;
use crate::quoted::quoted;

/// Largest header in bytes; a model's has 100 per tensor.
const MAX_HEADER_BYTES: u64 = 16 << 20;

const EXPECTED: &str = "a safetensors file; fetch or write it again";

/// Opens a safetensors file and checks its whole header. The data are not read.
///
/// # Errors
/// [`Error::WeightsFile`] for a damaged or hostile header, naming the byte or the tensor.
pub(crate) fn open(path: &Path) -> Result<MappedFile> {
    let map = Arc::new(map(path)?);
    refuse_pointer(path, &map)?;
    let header = header(path, &map)?;
    let RawHeader(mut entries) = serde_json::from_slice(header).map_err(|error| {
        let found = format!("the header from byte 8 on: {}", quoted(&error.to_string()));
        damaged_by(path, found, EXPECTED, error)
    })?;
    entries.sort_by_key(|entry| entry.info.data_offsets);
    let file = DataSection { path, start: 8 + header.len(), end: map.len() };
    let tensors = file.tensors(entries)?;
    Ok(MappedFile { path: path.to_owned(), map, tensors })
}

/// Bytes of the header.
fn header<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a [u8]> {
    let Some((len, rest)) = bytes.split_first_chunk() else {
        return Err(damaged(path, format!("a file of {} bytes", bytes.len()), EXPECTED));
    };
    let len = u64::from_le_bytes(*len);
    if len > MAX_HEADER_BYTES {
        return Err(damaged(path, format!("a header of {len} bytes"), "a header of at most 16 MiB"));
    }
    let found = || format!("a header of {len} bytes in a file of {}", bytes.len());
    rest.get(..len as usize).ok_or_else(|| damaged(path, found(), EXPECTED))
}

/// Tensors of a header in order, without `__metadata__`.
struct RawHeader(Vec<RawTensor>);

/// Header entry.
struct RawTensor {
    name: String,
    info: RawTensorInfo,
}

/// Value of a header entry, `TensorInfo` of the safetensors crate.
#[derive(Deserialize)]
struct RawTensorInfo {
    dtype: Dtype,
    #[serde(deserialize_with = "bounded_dims")]
    shape: Vec<usize>,
    /// Byte range from the end of the header.
    data_offsets: (usize, usize),
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<RawHeader, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if entries.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
                    }
                    entries.push(RawTensor { name, info: map.next_value()? });
                }
                Ok(RawHeader(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Deserializes a shape of at most [`MAX_DIMS`] dimensions.
fn bounded_dims<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<usize>, D::Error> {
    struct Dims;
    impl<'de> Visitor<'de> for Dims {
        type Value = Vec<usize>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX_DIMS} sizes")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Vec<usize>, A::Error> {
            let mut dims = Vec::new();
            while let Some(dim) = seq.next_element()? {
                if dims.len() == MAX_DIMS {
                    return Err(A::Error::invalid_length(dims.len() + 1, &self));
                }
                dims.push(dim);
            }
            Ok(dims)
        }
    }
    deserializer.deserialize_seq(Dims)
}

/// Data section of a file.
struct DataSection<'a> {
    path: &'a Path,
    /// First byte.
    start: usize,
    /// Size of the file.
    end: usize,
}

impl DataSection<'_> {
    /// Tensors of entries in the order of their data. They must fill the section without gaps.
    fn tensors(&self, entries: Vec<RawTensor>) -> Result<Vec<FileTensor>> {
        let mut names = BTreeSet::new();
        let mut start = 0;
        for entry in &entries {
            check_name(self.path, &entry.name)?;
            if !names.insert(&entry.name) {
                return Err(self.wrong(entry, "a name that comes twice".to_owned()));
            }
            start = self.end_of(entry, start)?;
        }
        if start != self.end - self.start {
            let found = format!("{start} bytes of tensors before {} bytes of data", self.end - self.start);
            return Err(damaged(self.path, found, "tensors that fill the file; fetch it again"));
        }
        Ok(entries.into_iter().map(|entry| self.tensor(entry)).collect())
    }

    /// End of an entry that must begin at `start`; both offsets are from the end of the header.
    fn end_of(&self, entry: &RawTensor, start: usize) -> Result<usize> {
        let RawTensorInfo { dtype, shape, data_offsets: (from, to) } = &entry.info;
        let bits = elements(shape).and_then(|n| n.checked_mul(dtype.bitsize()));
        let bits = bits.ok_or_else(|| self.wrong(entry, format!("impossible shape {shape:?}")))?;
        if *from != start {
            let found = format!("data from byte {from} on, where {start} is due");
            return Err(self.wrong(entry, found));
        }
        if to.checked_sub(*from) != Some(bits / 8) || !bits.is_multiple_of(8) {
            let found = format!("data from byte {from} to {to} for {shape:?} of {dtype:?}");
            return Err(self.wrong(entry, found));
        }
        if *to > self.end - self.start {
            let found = format!("data to byte {to} of {}; fetch it again", self.end - self.start);
            return Err(self.wrong(entry, found));
        }
        Ok(*to)
    }

    fn tensor(&self, entry: RawTensor) -> FileTensor {
        let RawTensorInfo { dtype, shape, data_offsets: (from, to) } = entry.info;
        FileTensor {
            name: entry.name,
            dtype_name: format!("{dtype:?}"),
            dtype: weight_dtype(dtype),
            shape,
            range: self.start + from..self.start + to,
        }
    }

    fn wrong(&self, entry: &RawTensor, found: String) -> Error {
        damaged(self.path, format!("tensor `{}`: {found}", entry.name), EXPECTED)
    }
}

/// Weight dtype of a safetensors dtype.
fn weight_dtype(dtype: Dtype) -> Option<WeightDtype> {
    match dtype {
        Dtype::F32 => Some(WeightDtype::F32),
        Dtype::F16 => Some(WeightDtype::F16),
        Dtype::BF16 => Some(WeightDtype::BF16),
        _ => None,
    }
}
