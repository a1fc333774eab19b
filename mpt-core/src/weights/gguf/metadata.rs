//! Metadata of a GGUF file: key-value pairs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use memmap2::Mmap;

/// Metadata of a GGUF file. Arrays stay in the mapped file and are decoded during iteration.
#[derive(Clone, Debug, Default)]
pub struct GgufMetadata {
    pub(super) values: BTreeMap<String, GgufValue>,
}

/// Metadata value.
#[derive(Clone, Debug)]
pub enum GgufValue {
    /// Integer of any width.
    Int(i64),
    /// Floating-point number of either width.
    Float(f64),
    /// Boolean.
    Bool(bool),
    /// String.
    Text(String),
    /// Array of one type.
    Array(GgufArray),
}

/// Metadata array in a mapped file.
#[derive(Clone)]
pub struct GgufArray {
    pub(super) map: Arc<Mmap>,
    pub(super) element_type: u32,
    pub(super) len: usize,
    /// Byte range of the elements, checked to hold `len` of them.
    pub(super) range: Range<usize>,
}

impl std::fmt::Debug for GgufArray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GgufArray")
            .field("element_type", &self.element_type)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl GgufMetadata {
    /// Value of a key.
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.values.get(key)
    }

    /// Keys and values, in the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &GgufValue)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// String value of a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            GgufValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Integer value of a key.
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            GgufValue::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// Numeric value of a key, integers included.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            GgufValue::Float(value) => Some(*value),
            GgufValue::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// Array value of a key.
    pub fn array(&self, key: &str) -> Option<&GgufArray> {
        match self.get(key)? {
            GgufValue::Array(array) => Some(array),
            _ => None,
        }
    }
}

impl GgufArray {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the array is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Strings of the array; invalid UTF-8 becomes U+FFFD. `None` for another type.
    pub fn texts(&self) -> Option<impl Iterator<Item = String>> {
        if self.element_type != super::TEXT {
            return None;
        }
        let mut rest = &self.map[self.range.clone()];
        Some((0..self.len).map_while(move |_| {
            let (len, after) = rest.split_first_chunk::<8>()?;
            let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
            let text = after.get(..len)?;
            rest = &after[len..];
            Some(String::from_utf8_lossy(text).into_owned())
        }))
    }

    /// 32-bit integers of the array; `None` for another type.
    pub fn ints(&self) -> Option<impl Iterator<Item = i32>> {
        let types = [super::U32, super::I32];
        let bytes = &self.map[self.range.clone()];
        types
            .contains(&self.element_type)
            .then(|| bytes.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes)))
    }
}
