//! Reading a GGUF file: every length and offset is checked against the file before it is used.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::metadata::{MetaArray, MetaValue, Metadata};
use super::{ARRAY, DEFAULT_ALIGNMENT, I32, MAGIC, TEXT, U32};
use crate::bounded_file::refuse_pointer;
use crate::dtype::WeightDtype;
use crate::error::damaged;
use crate::error::{Error, Result};
use crate::mmap::map;
use crate::quoted::quoted;
use crate::weights::file::{FileTensor, MappedFile};
use crate::weights::limits::{MOST_TENSORS, check_name, elements};

/// Keys at most, and tensors.
const MOST_ENTRIES: u64 = MOST_TENSORS as u64;

/// Bytes of a key or a name at most, before names are looked at.
const LONGEST_TEXT: usize = 1 << 16;

/// A GGUF file: tensors under llama.cpp's names.
pub(crate) struct GgufFile {
    pub(crate) file: MappedFile,
    pub(crate) metadata: Metadata,
}

/// Opens a GGUF file; all metadata and tensor headers are checked, the data not read.
///
/// # Errors
/// [`Error::WeightsFile`] with the offset of what is wrong.
pub(crate) fn open(path: &Path) -> Result<GgufFile> {
    let map = Arc::new(map(path)?);
    refuse_pointer(path, &map)?;
    let mut reader = Reader { path, map: &map, at: 0 };
    let (tensor_count, pair_count) = reader.header()?;
    let mut metadata = Metadata::default();
    for _ in 0..pair_count {
        let at = reader.at;
        let key = reader.text(LONGEST_TEXT)?;
        if metadata.values.contains_key(&key) {
            return Err(reader.wrong(at, format!("key `{}` comes twice", quoted(&key))));
        }
        metadata.values.insert(key, reader.value()?);
    }
    refuse_part(path, &metadata)?;
    let alignment = alignment(&reader, &metadata)?;
    let headers = (0..tensor_count).map(|_| reader.tensor_header()).collect::<Result<Vec<_>>>()?;
    let data = reader.at.next_multiple_of(alignment);
    let tensors = headers
        .into_iter()
        .map(|header| header.locate(&reader, data, alignment))
        .collect::<Result<Vec<_>>>()?;
    refuse_overlaps(&reader, &tensors)?;
    Ok(GgufFile { file: MappedFile { path: path.to_owned(), map: Arc::clone(&map), tensors }, metadata })
}

/// A part of a split file has some of a model's tensors.
fn refuse_part(path: &Path, metadata: &Metadata) -> Result<()> {
    match metadata.int("split.count") {
        Some(count) if count > 1 => {
            let number = metadata.int("split.no").unwrap_or(0).saturating_add(1);
            let expected = "one whole file; join the parts with llama.cpp's `llama-gguf-split --merge`";
            Err(damaged(path, format!("part {number} of a file split in {count}"), expected))
        }
        _ => Ok(()),
    }
}

fn alignment(reader: &Reader<'_>, metadata: &Metadata) -> Result<usize> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&MetaValue::Int(n)) if (1..=1 << 20).contains(&n) && n & (n - 1) == 0 => Ok(n as usize),
        Some(MetaValue::Int(n)) => Err(reader.wrong(reader.at, format!("general.alignment {n}"))),
        Some(_) => Err(reader.wrong(reader.at, "general.alignment, which is no integer".to_owned())),
    }
}

fn refuse_overlaps(reader: &Reader<'_>, tensors: &[FileTensor]) -> Result<()> {
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

/// A tensor's entry in the header.
struct TensorHeader {
    at: usize,
    name: String,
    /// Innermost dimension last, as in every other format here.
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

impl TensorHeader {
    fn locate(self, reader: &Reader<'_>, data: usize, alignment: usize) -> Result<FileTensor> {
        let wrong = |what: String| reader.wrong(self.at, format!("tensor `{}`: {what}", self.name));
        let format = format_of(self.kind).ok_or_else(|| unsupported(reader.path, &self))?;
        let whole_blocks = self.shape.last().is_some_and(|len| len.is_multiple_of(format.block_len()));
        let elements = elements(&self.shape).filter(|_| whole_blocks);
        let bytes = elements.map(|n| n / format.block_len() * format.block_bytes());
        let bytes = bytes.ok_or_else(|| wrong(format!("impossible shape {:?} of {format}", self.shape)))?;
        let offset = usize::try_from(self.offset).ok().filter(|offset| offset.is_multiple_of(alignment));
        let offset = offset.ok_or_else(|| wrong(format!("offset {} is not aligned", self.offset)))?;
        let range = part(data, offset, bytes, reader.map.len());
        let range =
            range.ok_or_else(|| wrong(format!("{bytes} bytes at offset {offset} lie beyond the end")))?;
        let dtype = format.name().to_uppercase();
        Ok(FileTensor { name: self.name, dtype, format: Some(format), shape: self.shape, range })
    }
}

/// A number of 32 bits as the shortest decimal that stands for it: 1e-5, not 9.999999747378752e-6.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn part(data: usize, offset: usize, bytes: usize, end: usize) -> Option<Range<usize>> {
    let start = data.checked_add(offset)?;
    let range = start..start.checked_add(bytes)?;
    (range.end <= end).then_some(range)
}

fn unsupported(path: &Path, header: &TensorHeader) -> Error {
    Error::TensorDtype {
        path: path.to_owned(),
        name: header.name.clone(),
        actual: format!("ggml type {}", header.kind),
        expected: "F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K or Q6_K; quantize the model again to one of them",
    }
}

/// Source: `ggml.h`, `enum ggml_type`.
fn format_of(kind: u32) -> Option<WeightDtype> {
    match kind {
        0 => Some(WeightDtype::F32),
        1 => Some(WeightDtype::F16),
        2 => Some(WeightDtype::Q4_0),
        8 => Some(WeightDtype::Q8_0),
        12 => Some(WeightDtype::Q4K),
        13 => Some(WeightDtype::Q5K),
        14 => Some(WeightDtype::Q6K),
        30 => Some(WeightDtype::BF16),
        _ => None,
    }
}

/// The number by which ggml knows a form, where it does.
pub(super) fn kind_of(format: WeightDtype) -> Option<u32> {
    Some(match format {
        WeightDtype::F32 => 0,
        WeightDtype::F16 => 1,
        WeightDtype::Q4_0 => 2,
        WeightDtype::Q8_0 => 8,
        WeightDtype::Q4K => 12,
        WeightDtype::Q5K => 13,
        WeightDtype::Q6K => 14,
        WeightDtype::BF16 => 30,
        WeightDtype::Nf4 => return None,
    })
}

struct Reader<'a> {
    path: &'a Path,
    map: &'a Arc<Mmap>,
    at: usize,
}

impl Reader<'_> {
    /// Numbers of tensors and of metadata pairs.
    fn header(&mut self) -> Result<(u64, u64)> {
        if &self.array::<4>()? != MAGIC {
            return Err(self.wrong(0, "another beginning than `GGUF`".to_owned()));
        }
        match u32::from_le_bytes(self.array()?) {
            2 | 3 => {}
            swapped if matches!(swapped.swap_bytes(), 2 | 3) => {
                let expected = "a little-endian one; convert the model again for this kind of machine";
                return Err(damaged(self.path, "byte 4: the version of a big-endian GGUF file", expected));
            }
            other => return Err(self.wrong(4, format!("version {other}; versions 2 and 3 are read"))),
        }
        let counts = (self.u64()?, self.u64()?);
        if counts.0 > MOST_ENTRIES || counts.1 > MOST_ENTRIES {
            return Err(self.wrong(8, format!("{} tensors and {} keys", counts.0, counts.1)));
        }
        Ok(counts)
    }

    fn value(&mut self) -> Result<MetaValue> {
        let at = self.at;
        Ok(match u32::from_le_bytes(self.array()?) {
            0 => MetaValue::Int(u8::from_le_bytes(self.array()?).into()),
            1 => MetaValue::Int(i8::from_le_bytes(self.array()?).into()),
            2 => MetaValue::Int(u16::from_le_bytes(self.array()?).into()),
            3 => MetaValue::Int(i16::from_le_bytes(self.array()?).into()),
            U32 => MetaValue::Int(u32::from_le_bytes(self.array()?).into()),
            I32 => MetaValue::Int(i32::from_le_bytes(self.array()?).into()),
            6 => MetaValue::Float(shortest(f32::from_le_bytes(self.array()?))),
            7 => match self.array()? {
                [0] => MetaValue::Bool(false),
                [1] => MetaValue::Bool(true),
                [other] => return Err(self.wrong(at, format!("truth value {other}"))),
            },
            TEXT => MetaValue::Text(self.text(usize::MAX)?),
            ARRAY => MetaValue::Array(self.meta_array()?),
            10 | 11 => MetaValue::Int(i64::from_le_bytes(self.array()?)),
            12 => MetaValue::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(self.wrong(at, format!("a value of type {other}"))),
        })
    }

    fn meta_array(&mut self) -> Result<MetaArray> {
        let at = self.at;
        let kind = u32::from_le_bytes(self.array()?);
        let len = self.u64()?;
        let len = usize::try_from(len).ok().filter(|&len| len <= self.map.len());
        let len = len.ok_or_else(|| self.wrong(at, "an array longer than the file".to_owned()))?;
        let width = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            TEXT => 0,
            other => return Err(self.wrong(at, format!("an array of type {other}"))),
        };
        let start = self.at;
        match width {
            0 => (0..len).try_for_each(|_| {
                let bytes = self.u64()?;
                self.take(bytes).map(|_| ())
            })?,
            width => {
                self.take((len as u64).saturating_mul(width))?;
            }
        }
        Ok(MetaArray { map: Arc::clone(self.map), kind, len, range: start..self.at })
    }

    fn tensor_header(&mut self) -> Result<TensorHeader> {
        let at = self.at;
        let name = self.text(LONGEST_TEXT)?;
        check_name(self.path, &name)?;
        let dims = u32::from_le_bytes(self.array()?);
        if !(1..=4).contains(&dims) {
            return Err(self.wrong(at, format!("tensor `{name}` of {dims} dimensions")));
        }
        let mut shape = (0..dims).map(|_| self.dimension(at)).collect::<Result<Vec<_>>>()?;
        shape.reverse();
        let kind = u32::from_le_bytes(self.array()?);
        Ok(TensorHeader { at, name, shape, kind, offset: self.u64()? })
    }

    fn dimension(&mut self, at: usize) -> Result<usize> {
        let n = self.u64()?;
        let fits = usize::try_from(n).ok().filter(|&n| n <= isize::MAX as usize);
        fits.ok_or_else(|| self.wrong(at, format!("a dimension of {n}")))
    }

    fn text(&mut self, longest: usize) -> Result<String> {
        let at = self.at;
        let len = self.u64()?;
        if len > longest as u64 {
            return Err(self.wrong(at, format!("a name of {len} bytes")));
        }
        let bytes = self.take(len)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.wrong(at, "text that is no UTF-8".to_owned()))
    }

    fn take(&mut self, len: u64) -> Result<&[u8]> {
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        let end = end.filter(|&end| end <= self.map.len());
        let end =
            end.ok_or_else(|| self.wrong(self.at, format!("{len} bytes beyond the end of the file")))?;
        let taken = self.at..end;
        self.at = end;
        Ok(&self.map[taken])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N as u64)?.try_into().expect("N bytes were taken"))
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn wrong(&self, at: usize, found: String) -> Error {
        damaged(self.path, format!("byte {at}: {found}"), "a GGUF file; fetch or convert it again")
    }
}
