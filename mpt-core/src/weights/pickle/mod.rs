//! `pytorch_model.bin`: a zip archive with a pickled state dict, read as data.
//!
//! No global of the pickle is resolved or called: opcodes and globals are allow-listed, and every tensor must lie inside its
//! storage. Tensors stay mapped in the archive, whose members are uncompressed.

mod objects;
mod unpickler;
mod value;
mod zip;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use unpickler::{Unpickled, unpickle};
use value::{Id, Value};

use super::file::{FileTensor, MappedFile};
use super::limits::{MAX_TENSORS, check_name, elements};
use crate::bounded_file::refuse_pointer;
use crate::dtype::WeightDtype;
use crate::error::Result;
use crate::error::damaged;
use crate::mmap::map;
use crate::quoted::quoted;

/// Largest pickle in bytes; tensor data are not in it.
const MAX_PICKLE_BYTES: usize = 32 << 20;

/// Keys under which trainers nest the state dict.
const NESTED: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// Opens a `.bin` file that `torch.save` wrote (torch 1.6 or later).
///
/// # Errors
/// [`Error::WeightsFile`](crate::Error::WeightsFile) naming the byte or the tensor that is wrong.
pub(crate) fn open(path: &Path) -> Result<MappedFile> {
    let map = Arc::new(map(path)?);
    refuse_pointer(path, &map)?;
    if !map.starts_with(b"PK") {
        let expected =
            "a zip archive, as torch.save writes since 1.6; load and save it again with a newer torch";
        return Err(damaged(path, "a file that is no zip archive", expected));
    }
    let members = zip::members(path, &map)?;
    let mut pickles = members.iter().filter(|(name, _)| name.ends_with("/data.pkl"));
    let (Some((name, range)), None) = (pickles.next(), pickles.next()) else {
        return Err(damaged(path, "no member `data.pkl`, or several", "a file that `torch.save` wrote"));
    };
    if range.len() > MAX_PICKLE_BYTES {
        return Err(damaged(
            path,
            format!("a pickle of {} bytes", range.len()),
            "at most 32 MiB beside the tensors",
        ));
    }
    let folder = name.strip_suffix("data.pkl").unwrap_or(name);
    if members.get(&format!("{folder}byteorder")).is_some_and(|range| &map[range.clone()] == b"big") {
        return Err(damaged(path, "big-endian numbers", "little-endian ones; save it again as safetensors"));
    }
    let unpickled = unpickle(&map[range.clone()]).map_err(|wrong| {
        let found = format!("byte {}: {}", range.start + wrong.at, wrong.found);
        damaged(path, found, "a pickled dictionary of tensors and nothing else")
    })?;
    let archive = Archive { path, folder, members: &members, unpickled: &unpickled };
    let tensors = archive.tensors()?;
    Ok(MappedFile { path: path.to_owned(), map, tensors })
}

/// Archive with its parsed pickle.
struct Archive<'a> {
    path: &'a Path,
    /// Common prefix of the member names.
    folder: &'a str,
    members: &'a BTreeMap<String, Range<usize>>,
    unpickled: &'a Unpickled,
}

impl Archive<'_> {
    /// Tensors of the state dict.
    fn tensors(&self) -> Result<Vec<FileTensor>> {
        let Value::Dict(root) = self.value(self.unpickled.root) else {
            return Err(damaged(self.path, "another object", "a dictionary of tensors"));
        };
        let pairs = self.nested_state_dict(root).unwrap_or(root);
        if pairs.len() > MAX_TENSORS {
            return Err(damaged(self.path, format!("{} tensors", pairs.len()), "at most 65536 of them"));
        }
        let mut names = BTreeSet::new();
        let mut tensors = Vec::new();
        for &(key, value) in pairs {
            let Value::Text(name) = self.value(key) else {
                return Err(damaged(self.path, "a key that is no text", "names of tensors"));
            };
            check_name(self.path, name)?;
            if !names.insert(name) {
                let found = format!("tensor `{name}`: a name that comes twice");
                return Err(damaged(self.path, found, "each tensor once"));
            }
            tensors.push(self.tensor(name, value)?);
        }
        Ok(tensors)
    }

    /// State dict nested in a trainer's checkpoint; `None` when there is none.
    fn nested_state_dict<'b>(&'b self, root: &[(Id, Id)]) -> Option<&'b Vec<(Id, Id)>> {
        let is_state_dict =
            |key: Id| matches!(self.value(key), Value::Text(name) if NESTED.contains(&name.as_str()));
        root.iter().filter(|(key, _)| is_state_dict(*key)).find_map(|&(_, value)| match self.value(value) {
            Value::Dict(pairs) => Some(pairs),
            _ => None,
        })
    }

    fn value(&self, id: Id) -> &Value {
        &self.unpickled.values[id as usize]
    }

    /// Checked tensor: a contiguous view inside its storage.
    fn tensor(&self, name: &str, value: Id) -> Result<FileTensor> {
        let wrong = |found: &str| {
            damaged(self.path, format!("tensor `{name}`: {found}"), "a plain tensor of a storage")
        };
        let Value::Tensor { storage, offset, shape, stride } = self.value(value) else {
            return Err(wrong("another object"));
        };
        let Value::Storage { dtype: dtype_name, key, len } = self.value(*storage) else {
            return Err(wrong("no storage"));
        };
        let Value::Text(key) = self.value(*key) else { return Err(wrong("no storage")) };
        let member = self.members.get(&format!("{}data/{key}", self.folder));
        let member =
            member.ok_or_else(|| wrong(&format!("the storage `{}`, which is no member", quoted(key))))?;
        let shape = sizes(shape).ok_or_else(|| wrong("an impossible shape"))?;
        if !is_contiguous(&shape, stride) {
            return Err(wrong("a view that is not contiguous; save a contiguous copy"));
        }
        let (dtype, width) = element_type(dtype_name);
        let range =
            byte_range(member, width, usize::try_from(*len).ok(), usize::try_from(*offset).ok(), &shape);
        let range = range.ok_or_else(|| wrong("elements outside its storage"))?;
        Ok(FileTensor { name: name.to_owned(), dtype_name: (*dtype_name).to_owned(), dtype, shape, range })
    }
}

/// Weight dtype and element size in bytes of a dtype.
fn element_type(dtype_name: &str) -> (Option<WeightDtype>, usize) {
    match dtype_name {
        "F32" => (Some(WeightDtype::F32), 4),
        "F16" => (Some(WeightDtype::F16), 2),
        "BF16" => (Some(WeightDtype::BF16), 2),
        "F64" | "I64" => (None, 8),
        "I32" => (None, 4),
        _ => (None, 1),
    }
}

/// Shape without negative sizes.
fn sizes(shape: &[i64]) -> Option<Vec<usize>> {
    shape.iter().map(|&n| usize::try_from(n).ok()).collect()
}

/// Whether a view is row-major without gaps. Strides of dimensions of size 1 are ignored.
fn is_contiguous(shape: &[usize], stride: &[i64]) -> bool {
    let mut expected = 1usize;
    shape.len() == stride.len()
        && shape.iter().zip(stride).rev().all(|(&n, &stride)| {
            let fits = n == 1 || usize::try_from(stride) == Ok(expected);
            expected = expected.saturating_mul(n);
            fits || expected == 0
        })
}

/// Byte range of a tensor at `offset` elements in the storage `member` of `len` elements of `width` bytes.
fn byte_range(
    member: &Range<usize>,
    width: usize,
    len: Option<usize>,
    offset: Option<usize>,
    shape: &[usize],
) -> Option<Range<usize>> {
    let elements = elements(shape)?;
    let storage = len?.checked_mul(width).filter(|&bytes| bytes <= member.len())?;
    let start = offset?.checked_mul(width)?;
    let end = start.checked_add(elements.checked_mul(width)?).filter(|&end| end <= storage)?;
    Some(member.start + start..member.start + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguous_views_only() {
        assert!(is_contiguous(&[2, 3], &[3, 1]));
        assert!(is_contiguous(&[2, 1, 3], &[3, 99, 1]));
        assert!(is_contiguous(&[], &[]));
        assert!(!is_contiguous(&[3, 2], &[1, 3]));
        assert!(!is_contiguous(&[2, 3], &[0, 1]));
        assert!(!is_contiguous(&[2, 3], &[-3, 1]));
        assert!(!is_contiguous(&[2, 3], &[1]));
    }

    #[test]
    fn tensors_lie_inside_their_storage() {
        let member = 100..140; // ten f32
        assert_eq!(byte_range(&member, 4, Some(10), Some(4), &[2, 3]), Some(116..140));
        assert_eq!(byte_range(&member, 4, Some(10), Some(5), &[2, 3]), None);
        assert_eq!(byte_range(&member, 4, Some(11), Some(0), &[1]), None);
        assert_eq!(byte_range(&member, 4, None, Some(0), &[1]), None);
        assert_eq!(byte_range(&member, 4, Some(10), None, &[1]), None);
        assert_eq!(byte_range(&member, 4, Some(10), Some(usize::MAX), &[1]), None);
        assert_eq!(byte_range(&member, 4, Some(10), Some(0), &[usize::MAX, 2]), None);
    }
}
