//! NF4 in a folder, as transformers and bitsandbytes save it: a tensor of codes, and beside it its scales and their state.
//!
//! Source: bitsandbytes' `functional.py`, `QuantState.as_dict`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::file::{FileTensor, MappedFile};
use super::limits::elements;
use crate::dtype::WeightDtype;
use crate::error::damaged;
use crate::error::{Error, Result, damaged_by};
use crate::nf4::{BLOCK, CODEBOOK, NESTED_BLOCK, pack_blocks};
use crate::quoted::quoted;

/// What the name of a tensor's state adds to the tensor's name.
pub(crate) const STATE: &str = ".quant_state.bitsandbytes__nf4";

/// The same of the other 4-bit form of bitsandbytes.
const OTHER_STATE: &str = ".quant_state.bitsandbytes__fp4";

/// Bytes of a state at most: it has 200.
const LARGEST_STATE: usize = 4096;

const SOUND: &str = "what bitsandbytes saves of an NF4 tensor; fetch or quantize it again";

/// Number of a file, and place of a tensor in it.
type Place = (usize, usize);

/// What a tensor has beside its codes.
pub(super) struct Parts {
    scales: Scales,
    /// Bytes of all parts and the codes.
    pub(super) bytes: usize,
}

enum Scales {
    /// An f32 of each block.
    Plain(Place),
    /// An index of each block to a map, to be multiplied with the scale of its group and moved by an offset.
    Nested { indices: Place, scales: Place, map: Place, offset: f32 },
}

/// The state, JSON in a tensor of bytes; other keys change nothing.
#[derive(Deserialize)]
struct State {
    quant_type: String,
    blocksize: usize,
    shape: [usize; 2],
    nested_blocksize: Option<usize>,
    nested_offset: Option<f32>,
}

/// Finds the NF4 tensors among `tensors`: each gets its true shape and form, and its parts stop being tensors of their own.
///
/// # Errors
/// [`Error::MissingTensor`] for a part that is not there, [`Error::WeightsFile`] for one that does not fit the others, and
/// [`Error::Unsupported`] for forms of bitsandbytes that are not read.
pub(super) fn collect(
    files: &mut [MappedFile],
    tensors: &mut BTreeMap<String, Place>,
) -> Result<BTreeMap<String, Parts>> {
    if let Some((name, &(file, _))) = tensors.iter().find(|(name, _)| name.ends_with(OTHER_STATE)) {
        let name = name.trim_end_matches(OTHER_STATE);
        return Err(unsupported(&files[file].path, "bnb_4bit_quant_type", format!("fp4 of `{name}`")));
    }
    let names: Vec<String> =
        tensors.keys().filter_map(|name| name.strip_suffix(STATE)).map(str::to_owned).collect();
    let mut found = BTreeMap::new();
    for name in names {
        let (parts, shape, codes) = Beside { files, tensors, name: &name }.read()?;
        let tensor = &mut files[codes.0].tensors[codes.1];
        (tensor.dtype, tensor.format, tensor.shape) =
            ("NF4".to_owned(), Some(WeightDtype::Nf4), shape.to_vec());
        for part in [STATE, ".absmax", ".nested_absmax", ".nested_quant_map", ".quant_map"] {
            tensors.remove(&format!("{name}{part}"));
        }
        found.insert(name, parts);
    }
    Ok(found)
}

fn unsupported(path: &Path, field: &'static str, actual: String) -> Error {
    Error::Unsupported { path: path.to_owned(), field, actual, instead: "quantize the original model again" }
}

/// A tensor `name` and what lies beside it.
struct Beside<'a> {
    files: &'a [MappedFile],
    tensors: &'a BTreeMap<String, Place>,
    name: &'a str,
}

impl Beside<'_> {
    /// The parts, the tensor's shape, and the place of its codes.
    fn read(&self) -> Result<(Parts, [usize; 2], Place)> {
        let (state, state_bytes) = self.state()?;
        let shape = state.shape;
        let is_whole = shape[1].is_multiple_of(BLOCK);
        let num_values = elements(&shape).filter(|_| is_whole).ok_or_else(|| {
            self.wrong(STATE, format!("shape {shape:?}"), "rows of whole blocks of 64 values")
        })?;
        let blocks = num_values / BLOCK;
        let codes = self.part("", "U8", num_values / 2)?;
        let map = self.part(".quant_map", "F32", CODEBOOK.len())?;
        if !f32s(self.bytes(map)).zip(CODEBOOK).all(|(found, level)| (found - level).abs() <= 1e-6) {
            return Err(self.wrong(".quant_map", "other levels than NF4's".to_owned(), SOUND));
        }
        let mut places = vec![codes, map];
        let scales = match (state.nested_blocksize, state.nested_offset) {
            (None, None) => Scales::Plain(self.part(".absmax", "F32", blocks)?),
            (Some(NESTED_BLOCK), Some(offset)) if offset.is_finite() => Scales::Nested {
                indices: self.part(".absmax", "U8", blocks)?,
                scales: self.part(".nested_absmax", "F32", blocks.div_ceil(NESTED_BLOCK))?,
                map: self.part(".nested_quant_map", "F32", 256)?,
                offset,
            },
            (blocksize, offset) => {
                let found = format!("`nested_blocksize` {blocksize:?} and `nested_offset` {offset:?}");
                return Err(self.wrong(STATE, found, "groups of 256 and a number, or neither"));
            }
        };
        match scales {
            Scales::Plain(place) => places.push(place),
            Scales::Nested { indices, scales, map, .. } => places.extend([indices, scales, map]),
        }
        let bytes = state_bytes + places.into_iter().map(|place| self.bytes(place).len()).sum::<usize>();
        Ok((Parts { scales, bytes }, shape, codes))
    }

    fn state(&self) -> Result<(State, usize)> {
        let place = self.tensors[&format!("{}{STATE}", self.name)];
        let (tensor, bytes) = (self.entry(place), self.bytes(place));
        if tensor.dtype != "U8" || bytes.len() > LARGEST_STATE {
            let found = format!("{} bytes of {}", bytes.len(), tensor.dtype);
            return Err(self.wrong(STATE, found, "at most 4096 bytes of JSON"));
        }
        let state: State = serde_json::from_slice(bytes).map_err(|error| {
            let found = format!("tensor `{}{STATE}`: {}", self.name, quoted(&error.to_string()));
            damaged_by(&self.files[place.0].path, found, SOUND, error)
        })?;
        if state.quant_type != "nf4" {
            return Err(self.wrong(STATE, format!("`quant_type` {}", quoted(&state.quant_type)), "`nf4`"));
        }
        if state.blocksize != BLOCK {
            let path = &self.files[place.0].path;
            return Err(unsupported(path, "blocksize", format!("{} of `{}`", state.blocksize, self.name)));
        }
        Ok((state, bytes.len()))
    }

    /// The place of the part `suffix`, which has `len` values of `dtype`.
    fn part(&self, suffix: &str, dtype: &str, len: usize) -> Result<Place> {
        let name = format!("{}{suffix}", self.name);
        let state = self.tensors[&format!("{}{STATE}", self.name)];
        let missing = || Error::MissingTensor { path: self.files[state.0].path.clone(), name: name.clone() };
        let place = *self.tensors.get(&name).ok_or_else(missing)?;
        let tensor = self.entry(place);
        let size = if dtype == "F32" { 4 } else { 1 };
        if tensor.dtype != dtype || elements(&tensor.shape) != Some(len) || tensor.range.len() != len * size {
            let found =
                format!("shape {:?} of {} where {len} values of {dtype} are due", tensor.shape, tensor.dtype);
            return Err(self.wrong(suffix, found, SOUND));
        }
        Ok(place)
    }

    fn entry(&self, (file, place): Place) -> &FileTensor {
        &self.files[file].tensors[place]
    }

    fn bytes(&self, place: Place) -> &[u8] {
        bytes(self.files, place)
    }

    fn wrong(&self, suffix: &str, found: String, expected: &'static str) -> Error {
        let name = format!("{}{suffix}", self.name);
        let place = self.tensors.get(&name).map_or(0, |&(file, _)| file);
        damaged(&self.files[place].path, format!("tensor `{name}`: {found}"), expected)
    }
}

impl Parts {
    /// The tensor's blocks as they lie in memory; its codes are at `codes`.
    pub(super) fn join(&self, files: &[MappedFile], codes: Place) -> Vec<u8> {
        let codes = bytes(files, codes);
        match self.scales {
            Scales::Plain(scales) => {
                let scales = bytes(files, scales);
                pack_blocks(codes, |block| f32_at(scales, block))
            }
            Scales::Nested { indices, scales, map, offset } => {
                let (indices, scales) = (bytes(files, indices), bytes(files, scales));
                let map: Vec<f32> = f32s(bytes(files, map)).collect();
                pack_blocks(codes, |block| {
                    map[usize::from(indices[block])] * f32_at(scales, block / NESTED_BLOCK) + offset
                })
            }
        }
    }
}

fn bytes(files: &[MappedFile], (file, place): Place) -> &[u8] {
    &files[file].map[files[file].tensors[place].range.clone()]
}

fn f32s(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

fn f32_at(bytes: &[u8], index: usize) -> f32 {
    f32::from_le_bytes(bytes.as_chunks().0[index])
}
