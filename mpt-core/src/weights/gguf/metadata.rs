//! The key-value pairs of a GGUF file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use memmap2::Mmap;

/// Keys and values of a file. Arrays stay in the mapped file and are read as they are iterated.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pub(super) values: BTreeMap<String, MetaValue>,
}

/// One value.
#[derive(Clone, Debug)]
pub enum MetaValue {
    /// An integer of any width.
    Int(i64),
    /// A number of either width.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    Text(String),
    /// Values of one type.
    Array(MetaArray),
}

/// An array in a mapped file.
#[derive(Clone)]
pub struct MetaArray {
    pub(super) map: Arc<Mmap>,
    pub(super) kind: u32,
    pub(super) len: usize,
    /// The elements' bytes, checked to hold `len` whole elements.
    pub(super) range: Range<usize>,
}

impl std::fmt::Debug for MetaArray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetaArray").field("kind", &self.kind).field("len", &self.len).finish_non_exhaustive()
    }
}

impl Metadata {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&MetaValue> {
        self.values.get(key)
    }

    /// All keys and values, in the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MetaValue)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The text of a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            MetaValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer of a key.
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            MetaValue::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The number of a key, an integer too.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            MetaValue::Float(value) => Some(*value),
            MetaValue::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// The array of a key.
    pub fn array(&self, key: &str) -> Option<&MetaArray> {
        match self.get(key)? {
            MetaValue::Array(array) => Some(array),
            _ => None,
        }
    }
}

impl MetaArray {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements where they are text; bytes that are no UTF-8 become U+FFFD.
    pub fn texts(&self) -> Option<impl Iterator<Item = String>> {
        if self.kind != super::TEXT {
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

    /// The elements where they are 32-bit integers.
    pub fn ints(&self) -> Option<impl Iterator<Item = i32>> {
        let kinds = [super::U32, super::I32];
        let bytes = &self.map[self.range.clone()];
        kinds.contains(&self.kind).then(|| bytes.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes)))
    }
}
