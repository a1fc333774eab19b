//! GGUF header writer. The caller writes the tensor data.

use std::io::Write;

use super::types::ggml_type_of;
use super::{ARRAY, DEFAULT_ALIGNMENT, I32, MAGIC, TEXT, U32};
use crate::dtype::WeightDtype;

/// Header of a GGUF file: metadata and tensor infos in the order added.
#[derive(Debug, Default)]
pub struct GgufWriter {
    pairs: Vec<u8>,
    num_pairs: u64,
    tensors: Vec<u8>,
    num_tensors: u64,
    data_len: u64,
}

impl GgufWriter {
    /// Adds a `uint32`.
    pub fn int(&mut self, key: &str, value: u32) {
        self.pair(key, U32, &value.to_le_bytes());
    }

    /// Adds a `float32`.
    pub fn float(&mut self, key: &str, value: f32) {
        self.pair(key, 6, &value.to_le_bytes());
    }

    /// Adds a boolean.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.pair(key, 7, &[value.into()]);
    }

    /// Adds a string.
    pub fn text(&mut self, key: &str, value: &str) {
        self.pair(key, TEXT, &string_bytes(value));
    }

    /// Adds an array of strings.
    pub fn texts<S: AsRef<str>>(&mut self, key: &str, values: &[S]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| string_bytes(value.as_ref())).collect();
        self.array(key, TEXT, values.len(), &bytes);
    }

    /// Adds an array of `int32`.
    pub fn ints(&mut self, key: &str, values: &[i32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, I32, values.len(), &bytes);
    }

    /// Adds a tensor info. The data are written in the same order, each followed by its padding.
    ///
    /// # Panics
    /// When blocks do not fill the rows, or GGUF lacks the dtype.
    pub fn tensor(&mut self, name: &str, shape: &[usize], dtype: WeightDtype) {
        let row = shape.last().and_then(|&len| dtype.row_bytes(len)).expect("rows of whole blocks");
        let rows: usize = shape[..shape.len() - 1].iter().product();
        self.tensors.extend(string_bytes(name));
        self.tensors.extend((shape.len() as u32).to_le_bytes());
        self.tensors.extend(shape.iter().rev().flat_map(|&n| (n as u64).to_le_bytes()));
        self.tensors.extend(ggml_type_of(dtype).expect("a dtype that GGUF has").to_le_bytes());
        self.tensors.extend(self.data_len.to_le_bytes());
        self.num_tensors += 1;
        self.data_len += ((rows * row) as u64).next_multiple_of(DEFAULT_ALIGNMENT as u64);
    }

    /// Writes the header, padded up to the data of the first tensor.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_header(&self, out: &mut impl Write) -> std::io::Result<()> {
        let counts = [self.num_tensors.to_le_bytes(), self.num_pairs.to_le_bytes()].concat();
        let len = 8 + counts.len() + self.pairs.len() + self.tensors.len();
        for part in [&MAGIC[..], &3u32.to_le_bytes(), &counts, &self.pairs, &self.tensors, padding(len)] {
            out.write_all(part)?;
        }
        Ok(())
    }

    fn pair(&mut self, key: &str, value_type: u32, value: &[u8]) {
        self.pairs.extend(string_bytes(key));
        self.pairs.extend(value_type.to_le_bytes());
        self.pairs.extend(value);
        self.num_pairs += 1;
    }

    fn array(&mut self, key: &str, element_type: u32, len: usize, values: &[u8]) {
        let head = [&element_type.to_le_bytes()[..], &(len as u64).to_le_bytes()].concat();
        self.pair(key, ARRAY, &[&head, values].concat());
    }
}

/// Zero padding after `len` bytes of a header or a tensor.
pub(crate) fn padding(len: usize) -> &'static [u8] {
    &[0; DEFAULT_ALIGNMENT][..len.next_multiple_of(DEFAULT_ALIGNMENT) - len]
}

fn string_bytes(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}
