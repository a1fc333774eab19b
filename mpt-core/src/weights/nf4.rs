//! NF4 tensors of a folder, as transformers and bitsandbytes save them: codes, absmax scales and the quantization state in
//! tensors of their own.
//!
//! Source: bitsandbytes' `functional.py`, `QuantState.as_dict`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::file::{FileTensor, MappedFile, TensorIndex};
use super::limits::elements;
use crate::dtype::WeightDtype;
use crate::error::damaged;
use crate::error::{Error, Result, damaged_by};
use crate::nf4::{BLOCK, CODEBOOK, NESTED_BLOCK, pack_blocks};
use crate::quoted::quoted;

/// Suffix of the name of an NF4 quantization state.
pub(crate) const NF4_STATE_SUFFIX: &str = ".quant_state.bitsandbytes__nf4";

/// Suffix of the name of an FP4 quantization state.
const FP4_STATE_SUFFIX: &str = ".quant_state.bitsandbytes__fp4";

/// Largest quantization state in bytes; a real one has 200.
const MAX_STATE_BYTES: usize = 4096;

const EXPECTED: &str = "what bitsandbytes saves of an NF4 tensor; fetch or quantize it again";

/// Quantization state of an NF4 tensor, as bitsandbytes calls it.
pub(super) struct QuantState {
    absmax: Absmax,
    /// Size of the tensor in the files, in bytes: codes, scales and state.
    pub(super) bytes: usize,
}

/// Scales of the blocks: the largest magnitude of each.
enum Absmax {
    /// One f32 per block.
    Plain(TensorIndex),
    /// Double quantization: one 8-bit code per block into `map`, scaled by the f32 of its group, plus `offset`.
    Nested { codes: TensorIndex, scales: TensorIndex, map: TensorIndex, offset: f32 },
}

/// JSON of a quantization state; other keys are ignored.
#[derive(Deserialize)]
struct RawQuantState {
    quant_type: String,
    blocksize: usize,
    shape: [usize; 2],
    nested_blocksize: Option<usize>,
    nested_offset: Option<f32>,
}

/// Finds the NF4 tensors. The codes get the tensor's shape and dtype; the tensors beside them are removed from `tensors`.
///
/// # Errors
/// [`Error::MissingTensor`] for a missing part, [`Error::WeightsFile`] for inconsistent parts, and [`Error::Unsupported`] for
/// other formats of bitsandbytes.
pub(super) fn collect(
    files: &mut [MappedFile],
    tensors: &mut BTreeMap<String, TensorIndex>,
) -> Result<BTreeMap<String, QuantState>> {
    if let Some((name, &(file, _))) = tensors.iter().find(|(name, _)| name.ends_with(FP4_STATE_SUFFIX)) {
        let name = name.trim_end_matches(FP4_STATE_SUFFIX);
        return Err(unsupported(&files[file].path, "bnb_4bit_quant_type", format!("fp4 of `{name}`")));
    }
    let names: Vec<String> =
        tensors.keys().filter_map(|name| name.strip_suffix(NF4_STATE_SUFFIX)).map(str::to_owned).collect();
    let mut found = BTreeMap::new();
    for name in names {
        let (state, shape, codes) = QuantStateReader { files, tensors, name: &name }.read()?;
        let tensor = &mut files[codes.0].tensors[codes.1];
        (tensor.dtype_name, tensor.dtype, tensor.shape) =
            ("NF4".to_owned(), Some(WeightDtype::Nf4), shape.to_vec());
        for part in [NF4_STATE_SUFFIX, ".absmax", ".nested_absmax", ".nested_quant_map", ".quant_map"] {
            tensors.remove(&format!("{name}{part}"));
        }
        found.insert(name, state);
    }
    Ok(found)
}

fn unsupported(path: &Path, field: &'static str, actual: String) -> Error {
    Error::Unsupported { path: path.to_owned(), field, actual, instead: "quantize the original model again" }
}

/// Reader of the quantization state of the tensor `name`.
struct QuantStateReader<'a> {
    files: &'a [MappedFile],
    tensors: &'a BTreeMap<String, TensorIndex>,
    name: &'a str,
}

impl QuantStateReader<'_> {
    /// Quantization state, shape of the tensor, and index of its codes.
    fn read(&self) -> Result<(QuantState, [usize; 2], TensorIndex)> {
        let (state, state_bytes) = self.state()?;
        let shape = state.shape;
        let is_whole = shape[1].is_multiple_of(BLOCK);
        let num_values = elements(&shape).filter(|_| is_whole).ok_or_else(|| {
            self.wrong(NF4_STATE_SUFFIX, format!("shape {shape:?}"), "rows of whole blocks of 64 values")
        })?;
        let blocks = num_values / BLOCK;
        let codes = self.part("", "U8", num_values / 2)?;
        let map = self.part(".quant_map", "F32", CODEBOOK.len())?;
        if !f32s(self.bytes(map)).zip(CODEBOOK).all(|(found, level)| (found - level).abs() <= 1e-6) {
            return Err(self.wrong(".quant_map", "other levels than NF4's".to_owned(), EXPECTED));
        }
        let mut parts = vec![codes, map];
        let absmax = match (state.nested_blocksize, state.nested_offset) {
            (None, None) => Absmax::Plain(self.part(".absmax", "F32", blocks)?),
            (Some(NESTED_BLOCK), Some(offset)) if offset.is_finite() => Absmax::Nested {
                codes: self.part(".absmax", "U8", blocks)?,
                scales: self.part(".nested_absmax", "F32", blocks.div_ceil(NESTED_BLOCK))?,
                map: self.part(".nested_quant_map", "F32", 256)?,
                offset,
            },
            (blocksize, offset) => {
                let found = format!("`nested_blocksize` {blocksize:?} and `nested_offset` {offset:?}");
                return Err(self.wrong(NF4_STATE_SUFFIX, found, "groups of 256 and a number, or neither"));
            }
        };
        match absmax {
            Absmax::Plain(index) => parts.push(index),
            Absmax::Nested { codes, scales, map, .. } => parts.extend([codes, scales, map]),
        }
        let bytes = state_bytes + parts.into_iter().map(|index| self.bytes(index).len()).sum::<usize>();
        Ok((QuantState { absmax, bytes }, shape, codes))
    }

    /// Parsed JSON of the state, and its size in bytes.
    fn state(&self) -> Result<(RawQuantState, usize)> {
        let index = self.tensors[&format!("{}{NF4_STATE_SUFFIX}", self.name)];
        let (tensor, bytes) = (self.entry(index), self.bytes(index));
        if tensor.dtype_name != "U8" || bytes.len() > MAX_STATE_BYTES {
            let found = format!("{} bytes of {}", bytes.len(), tensor.dtype_name);
            return Err(self.wrong(NF4_STATE_SUFFIX, found, "at most 4096 bytes of JSON"));
        }
        let state: RawQuantState = serde_json::from_slice(bytes).map_err(|error| {
            let found = format!("tensor `{}{NF4_STATE_SUFFIX}`: {}", self.name, quoted(&error.to_string()));
            damaged_by(&self.files[index.0].path, found, EXPECTED, error)
        })?;
        if state.quant_type != "nf4" {
            return Err(self.wrong(
                NF4_STATE_SUFFIX,
                format!("`quant_type` {}", quoted(&state.quant_type)),
                "`nf4`",
            ));
        }
        if state.blocksize != BLOCK {
            let path = &self.files[index.0].path;
            return Err(unsupported(path, "blocksize", format!("{} of `{}`", state.blocksize, self.name)));
        }
        Ok((state, bytes.len()))
    }

    /// Index of the part `suffix`, checked to have `len` values of `dtype`.
    fn part(&self, suffix: &str, dtype: &str, len: usize) -> Result<TensorIndex> {
        let name = format!("{}{suffix}", self.name);
        let state = self.tensors[&format!("{}{NF4_STATE_SUFFIX}", self.name)];
        let missing = || Error::MissingTensor { path: self.files[state.0].path.clone(), name: name.clone() };
        let index = *self.tensors.get(&name).ok_or_else(missing)?;
        let tensor = self.entry(index);
        let size = if dtype == "F32" { 4 } else { 1 };
        if tensor.dtype_name != dtype
            || elements(&tensor.shape) != Some(len)
            || tensor.range.len() != len * size
        {
            let found = format!(
                "shape {:?} of {} where {len} values of {dtype} are due",
                tensor.shape, tensor.dtype_name
            );
            return Err(self.wrong(suffix, found, EXPECTED));
        }
        Ok(index)
    }

    fn entry(&self, (file, index): TensorIndex) -> &FileTensor {
        &self.files[file].tensors[index]
    }

    fn bytes(&self, index: TensorIndex) -> &[u8] {
        bytes(self.files, index)
    }

    fn wrong(&self, suffix: &str, found: String, expected: &'static str) -> Error {
        let name = format!("{}{suffix}", self.name);
        let index = self.tensors.get(&name).map_or(0, |&(file, _)| file);
        damaged(&self.files[index].path, format!("tensor `{name}`: {found}"), expected)
    }
}

impl QuantState {
    /// Blocks of the tensor in their memory layout: codes and f32 scale of each.
    pub(super) fn blocks(&self, files: &[MappedFile], codes: TensorIndex) -> Vec<u8> {
        let codes = bytes(files, codes);
        match self.absmax {
            Absmax::Plain(scales) => {
                let scales = bytes(files, scales);
                pack_blocks(codes, |block| f32_at(scales, block))
            }
            Absmax::Nested { codes: absmax, scales, map, offset } => {
                let (absmax, scales) = (bytes(files, absmax), bytes(files, scales));
                let map: Vec<f32> = f32s(bytes(files, map)).collect();
                pack_blocks(codes, |block| {
                    map[usize::from(absmax[block])] * f32_at(scales, block / NESTED_BLOCK) + offset
                })
            }
        }
    }
}

fn bytes(files: &[MappedFile], (file, index): TensorIndex) -> &[u8] {
    &files[file].map[files[file].tensors[index].range.clone()]
}

fn f32s(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

fn f32_at(bytes: &[u8], index: usize) -> f32 {
    f32::from_le_bytes(bytes.as_chunks().0[index])
}
