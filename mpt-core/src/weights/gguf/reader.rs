//! Bounds-checked reader of GGUF's primitive values. Every length is checked against the file before use.

use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::metadata::{GgufArray, GgufValue};
use super::{ARRAY, I32, MAGIC, TEXT, U32};
use crate::error::{Error, Result, damaged};
use crate::weights::limits::MAX_TENSORS;

/// Largest number of tensors, and of metadata pairs.
const MAX_ENTRIES: u64 = MAX_TENSORS as u64;

/// Cursor over a mapped GGUF file.
pub(super) struct GgufReader<'a> {
    pub(super) path: &'a Path,
    pub(super) map: &'a Arc<Mmap>,
    /// Offset of the next byte.
    pub(super) at: usize,
}

impl GgufReader<'_> {
    /// Numbers of tensors and of metadata pairs.
    pub(super) fn header(&mut self) -> Result<(u64, u64)> {
        if &self.array::<4>()? != MAGIC {
            return Err(self.wrong(0, "another beginning than `GGUF`".to_owned()));
        }
        match self.u32()? {
            2 | 3 => {}
            swapped if matches!(swapped.swap_bytes(), 2 | 3) => {
                let expected = "a little-endian one; convert the model again for this kind of machine";
                return Err(damaged(self.path, "byte 4: the version of a big-endian GGUF file", expected));
            }
            other => return Err(self.wrong(4, format!("version {other}; versions 2 and 3 are read"))),
        }
        let counts = (self.u64()?, self.u64()?);
        if counts.0 > MAX_ENTRIES || counts.1 > MAX_ENTRIES {
            return Err(self.wrong(8, format!("{} tensors and {} keys", counts.0, counts.1)));
        }
        Ok(counts)
    }

    /// Metadata value with its type.
    ///
    /// Source: ggml's `docs/gguf.md`, `gguf_metadata_value_type`.
    pub(super) fn value(&mut self) -> Result<GgufValue> {
        let at = self.at;
        Ok(match self.u32()? {
            0 => GgufValue::Int(u8::from_le_bytes(self.array()?).into()),
            1 => GgufValue::Int(i8::from_le_bytes(self.array()?).into()),
            2 => GgufValue::Int(u16::from_le_bytes(self.array()?).into()),
            3 => GgufValue::Int(i16::from_le_bytes(self.array()?).into()),
            U32 => GgufValue::Int(self.u32()?.into()),
            I32 => GgufValue::Int(i32::from_le_bytes(self.array()?).into()),
            6 => GgufValue::Float(shortest_decimal(f32::from_le_bytes(self.array()?))),
            7 => match self.array()? {
                [0] => GgufValue::Bool(false),
                [1] => GgufValue::Bool(true),
                [other] => return Err(self.wrong(at, format!("truth value {other}"))),
            },
            TEXT => GgufValue::Text(self.string(usize::MAX)?),
            ARRAY => GgufValue::Array(self.array_value()?),
            10 | 11 => GgufValue::Int(i64::from_le_bytes(self.array()?)),
            12 => GgufValue::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(self.wrong(at, format!("a value of type {other}"))),
        })
    }

    fn array_value(&mut self) -> Result<GgufArray> {
        let at = self.at;
        let element_type = self.u32()?;
        let len = self.u64()?;
        let len = usize::try_from(len).ok().filter(|&len| len <= self.map.len());
        let len = len.ok_or_else(|| self.wrong(at, "an array longer than the file".to_owned()))?;
        let width = match element_type {
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
        Ok(GgufArray { map: Arc::clone(self.map), element_type, len, range: start..self.at })
    }

    /// String of at most `max_bytes` bytes.
    pub(super) fn string(&mut self, max_bytes: usize) -> Result<String> {
        let at = self.at;
        let len = self.u64()?;
        if len > max_bytes as u64 {
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

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Error at the byte `at`.
    pub(super) fn wrong(&self, at: usize, found: String) -> Error {
        damaged(self.path, format!("byte {at}: {found}"), "a GGUF file; fetch or convert it again")
    }
}

/// f64 of the shortest decimal that parses to `value`: 1e-5, not 9.999999747378752e-6.
fn shortest_decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
