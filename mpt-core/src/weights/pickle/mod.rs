//! `pytorch_model.bin`: the zip archive of a pickled dictionary of tensors, read as data.
//!
//! No name of a file is looked up or called: the pickle is interpreted over an allow-list, and every tensor must lie
//! inside its storage. Tensors are used where they lie in the archive, which stores them uncompressed.

mod machine;
mod zip;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use machine::{Id, Unpickled, Value, unpickle};

use super::file::{FileTensor, MappedFile};
use super::limits::{MOST_TENSORS, check_name, elements};
use crate::bounded_file::refuse_pointer;
use crate::dtype::WeightDtype;
use crate::error::Result;
use crate::error::damaged;
use crate::mmap::map;
use crate::quoted::quoted;

/// Bytes of the pickle at most; the tensors are not in it.
const LARGEST_PICKLE: usize = 32 << 20;

/// Keys under which trainers save a model's tensors.
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
    if range.len() > LARGEST_PICKLE {
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

struct Archive<'a> {
    path: &'a Path,
    /// What the names of all members begin with.
    folder: &'a str,
    members: &'a BTreeMap<String, Range<usize>>,
    unpickled: &'a Unpickled,
}

impl Archive<'_> {
    fn tensors(&self) -> Result<Vec<FileTensor>> {
        let Value::Dict(top) = self.value(self.unpickled.top) else {
            return Err(damaged(self.path, "another object", "a dictionary of tensors"));
        };
        let pairs = self.nested(top).unwrap_or(top);
        if pairs.len() > MOST_TENSORS {
            return Err(damaged(self.path, format!("{} tensors", pairs.len()), "at most 65536 of them"));
        }
        let mut seen = BTreeSet::new();
        let mut tensors = Vec::new();
        for &(key, value) in pairs {
            let Value::Text(name) = self.value(key) else {
                return Err(damaged(self.path, "a key that is no text", "names of tensors"));
            };
            check_name(self.path, name)?;
            if !seen.insert(name) {
                let found = format!("tensor `{name}`: a name that comes twice");
                return Err(damaged(self.path, found, "each tensor once"));
            }
            tensors.push(self.tensor(name, value)?);
        }
        Ok(tensors)
    }

    /// The tensors of a trainer's checkpoint, which has them under one key beside its own state.
    fn nested<'b>(&'b self, top: &[(Id, Id)]) -> Option<&'b Vec<(Id, Id)>> {
        let is_tensors =
            |key: Id| matches!(self.value(key), Value::Text(name) if NESTED.contains(&name.as_str()));
        top.iter().filter(|(key, _)| is_tensors(*key)).find_map(|&(_, value)| match self.value(value) {
            Value::Dict(pairs) => Some(pairs),
            _ => None,
        })
    }

    fn value(&self, id: Id) -> &Value {
        &self.unpickled.values[id as usize]
    }

    fn tensor(&self, name: &str, value: Id) -> Result<FileTensor> {
        let wrong = |found: &str| {
            damaged(self.path, format!("tensor `{name}`: {found}"), "a plain tensor of a storage")
        };
        let Value::Tensor { storage, offset, shape, stride } = self.value(value) else {
            return Err(wrong("another object"));
        };
        let Value::Storage { dtype, key, len } = self.value(*storage) else {
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
        let (format, width) = form(dtype);
        let range = part(member, width, usize::try_from(*len).ok(), usize::try_from(*offset).ok(), &shape);
        let range = range.ok_or_else(|| wrong("elements outside its storage"))?;
        Ok(FileTensor { name: name.to_owned(), dtype: (*dtype).to_owned(), format, shape, range })
    }
}

/// The form of a dtype, and the bytes of an element.
fn form(dtype: &str) -> (Option<WeightDtype>, usize) {
    match dtype {
        "F32" => (Some(WeightDtype::F32), 4),
        "F16" => (Some(WeightDtype::F16), 2),
        "BF16" => (Some(WeightDtype::BF16), 2),
        "F64" | "I64" => (None, 8),
        "I32" => (None, 4),
        _ => (None, 1),
    }
}

fn sizes(shape: &[i64]) -> Option<Vec<usize>> {
    shape.iter().map(|&n| usize::try_from(n).ok()).collect()
}

/// Whether elements lie in order without gaps; the stride of a dimension of one element means nothing.
fn is_contiguous(shape: &[usize], stride: &[i64]) -> bool {
    let mut expected = 1usize;
    shape.len() == stride.len()
        && shape.iter().zip(stride).rev().all(|(&n, &stride)| {
            let fits = n == 1 || usize::try_from(stride) == Ok(expected);
            expected = expected.saturating_mul(n);
            fits || expected == 0
        })
}

/// The bytes of a tensor: `offset` elements into the storage `member` of `len` elements.
fn part(
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
        assert_eq!(part(&member, 4, Some(10), Some(4), &[2, 3]), Some(116..140));
        assert_eq!(part(&member, 4, Some(10), Some(5), &[2, 3]), None);
        assert_eq!(part(&member, 4, Some(11), Some(0), &[1]), None);
        assert_eq!(part(&member, 4, None, Some(0), &[1]), None);
        assert_eq!(part(&member, 4, Some(10), None, &[1]), None);
        assert_eq!(part(&member, 4, Some(10), Some(usize::MAX), &[1]), None);
        assert_eq!(part(&member, 4, Some(10), Some(0), &[usize::MAX, 2]), None);
    }
}
