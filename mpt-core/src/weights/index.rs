//! The index of a model in several files: which file holds each tensor.
//!
//! Only the names of the files are kept, since each file says itself what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::limits::LONGEST_NAME;
use crate::bounded_file::read_text;
use crate::error::damaged;
use crate::error::{Error, Result};
use crate::quoted::quoted;

/// Bytes of an index at most: a model's has 100 for each tensor.
const LARGEST_INDEX: u64 = 16 << 20;

/// Files of a model at most: MPT-30B has 7 to 61.
const MOST_FILES: usize = 1000;

/// The files that `index`, a `<single file>.index.json` of the folder `dir`, names: in the order of their names, inside
/// the folder, of the single file's kind.
///
/// # Errors
/// [`Error::ConfigSyntax`], and [`Error::WeightsFile`] with the name that is refused.
pub(super) fn files(dir: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: Files,
    }
    let text = read_text(index, LARGEST_INDEX, "at most 16 MiB of JSON")?;
    let Index { weight_map: Files(files) } = serde_json::from_str(&text)
        .map_err(|source| Error::ConfigSyntax { path: index.to_owned(), source })?;
    let single = Path::new(index.file_stem().unwrap_or_default()).with_extension("");
    let kind = single.extension().unwrap_or_default();
    let is_sound = |file: &str| {
        let path = Path::new(file);
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        inside && file.len() <= LONGEST_NAME && path.extension() == Some(kind)
    };
    match files.iter().find(|file| !is_sound(file)) {
        Some(file) => {
            let found = format!("the file name `{}`", quoted(file));
            Err(damaged(index, found, "names of weights files of one kind inside the folder"))
        }
        None => present(dir, index, &files),
    }
}

/// The file that an index names for a tensor; `None` where it says nothing of it or cannot be read.
pub(super) fn file_of(index: &Path, tensor: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = read_text(index, LARGEST_INDEX, "at most 16 MiB of JSON").ok()?;
    serde_json::from_str::<Index>(&text).ok()?.weight_map.remove(tensor)
}

/// The paths of the files, which are all there.
fn present(dir: &Path, index: &Path, files: &BTreeSet<String>) -> Result<Vec<PathBuf>> {
    let absent: Vec<&str> =
        files.iter().map(String::as_str).filter(|file| !dir.join(file).exists()).collect();
    let Some(first) = absent.first() else { return Ok(files.iter().map(|file| dir.join(file)).collect()) };
    let found = match absent.len() {
        1 => format!("`{}` is not there", quoted(first)),
        count => format!("`{}` and {} more files are not there", quoted(first), count - 1),
    };
    let found = format!("{found}, of {} that it names", files.len());
    let expected = "a whole download; fetch the model again";
    Err(Error::NotFetched { path: index.to_owned(), found, expected })
}

/// The values of `weight_map`, each once.
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
                    if files.len() > MOST_FILES {
                        return Err(A::Error::custom(format_args!("more than {MOST_FILES} files")));
                    }
                }
                Ok(Files(files))
            }
        }
        deserializer.deserialize_map(Map)
    }
}
