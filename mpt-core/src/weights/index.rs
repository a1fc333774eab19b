//! Index of a sharded model, `*.index.json`: file names by tensor.
//!
//! Only the set of file names is kept: the headers of the files list their tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::limits::MAX_NAME_BYTES;
use crate::bounded_file::read_text;
use crate::error::damaged;
use crate::error::{Error, Result};
use crate::quoted::quoted;

/// Largest index in bytes; a model's has 100 per tensor.
const MAX_INDEX_BYTES: u64 = 16 << 20;

/// Largest number of files; MPT-30B has 7 to 61.
const MAX_FILES: usize = 1000;

/// Weights files that `index`, a `<single file>.index.json` of the folder `dir`, names, in the order of names.
///
/// # Errors
/// [`Error::ConfigSyntax`], and [`Error::WeightsFile`] for a name outside the folder or of another extension, and for missing
/// files.
pub(super) fn files(dir: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: Files,
    }
    let text = read_text(index, MAX_INDEX_BYTES, "at most 16 MiB of JSON")?;
    let Index { weight_map: Files(files) } = serde_json::from_str(&text)
        .map_err(|source| Error::ConfigSyntax { path: index.to_owned(), source })?;
    let single = Path::new(index.file_stem().unwrap_or_default()).with_extension("");
    let extension = single.extension().unwrap_or_default();
    let is_sound = |file: &str| {
        let path = Path::new(file);
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        inside && file.len() <= MAX_NAME_BYTES && path.extension() == Some(extension)
    };
    match files.iter().find(|file| !is_sound(file)) {
        Some(file) => {
            let found = format!("the file name `{}`", quoted(file));
            Err(damaged(index, found, "names of weights files of one kind inside the folder"))
        }
        None => existing(dir, index, &files),
    }
}

/// File name of a tensor; `None` when the index lacks it or cannot be read.
pub(super) fn file_of(index: &Path, tensor: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = read_text(index, MAX_INDEX_BYTES, "at most 16 MiB of JSON").ok()?;
    serde_json::from_str::<Index>(&text).ok()?.weight_map.remove(tensor)
}

/// Paths of the files; an error when some are missing.
fn existing(dir: &Path, index: &Path, files: &BTreeSet<String>) -> Result<Vec<PathBuf>> {
    let missing: Vec<&str> =
        files.iter().map(String::as_str).filter(|file| !dir.join(file).exists()).collect();
    let Some(first) = missing.first() else { return Ok(files.iter().map(|file| dir.join(file)).collect()) };
    let found = match missing.len() {
        1 => format!("`{}` is not there", quoted(first)),
        count => format!("`{}` and {} more files are not there", quoted(first), count - 1),
    };
    let found = format!("{found}, of {} that it names", files.len());
    let expected = "a whole download; fetch the model again";
    Err(Error::NotFetched { path: index.to_owned(), found, expected })
}

/// Distinct values of `weight_map`.
struct Files(BTreeSet<String>);

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Files;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Files, A::Error> {
                let mut files = BTreeSet::new();
                while let Some((_, file)) = map.next_entry::<IgnoredAny, String>()? {
                    files.insert(file);
                    if files.len() > MAX_FILES {
                        return Err(A::Error::custom(format_args!("more than {MAX_FILES} files")));
                    }
                }
                Ok(Files(files))
            }
        }
        deserializer.deserialize_map(Map)
    }
}
