//! Sources of another program's data: one per subfolder, or one named after the folder.

use std::path::{Path, PathBuf};

use super::mds::MdsDataset;
use super::megatron::{self, IndexedDataset};
use crate::config::{SOURCE_NAME, is_source_name};
use crate::error::{Error, Result};

/// Source to import.
#[derive(Debug)]
pub(super) struct ForeignSource {
    /// Name.
    pub(super) name: String,
    /// Data.
    pub(super) data: ForeignData,
}

/// Data of a source.
#[derive(Debug)]
pub(super) enum ForeignData {
    /// MDS dataset, or a part of one.
    Mds(MdsDataset),
    /// Indexed datasets of Megatron with the prefixes of their files, in order.
    Megatron(Vec<(PathBuf, IndexedDataset)>),
}

impl ForeignSource {
    /// Bytes of the tokens.
    pub(super) fn bytes(&self) -> u64 {
        match &self.data {
            ForeignData::Mds(dataset) => dataset.shards().iter().map(|shard| shard.raw.bytes).sum(),
            ForeignData::Megatron(parts) => parts.iter().map(|(_, part)| part.bin_bytes()).sum(),
        }
    }

    /// Files, with their names relative to `root`.
    pub(super) fn files(&self, root: &Path) -> Result<Vec<(PathBuf, String)>> {
        let mut files = Vec::new();
        match &self.data {
            ForeignData::Mds(dataset) => {
                files.push(dataset.dir().join(super::mds::INDEX));
                for shard in dataset.shards() {
                    files.push(dataset.stored(shard)?.0);
                }
            }
            ForeignData::Megatron(parts) => {
                files.extend(
                    parts
                        .iter()
                        .flat_map(|(prefix, _)| [".idx", ".bin"].map(|end| megatron::file(prefix, end))),
                );
            }
        }
        Ok(files
            .into_iter()
            .map(|path| {
                let name = name_in(root, &path);
                (path, name)
            })
            .collect())
    }
}

/// Name of a file relative to a folder, with `/`.
pub(super) fn name_in(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).ok().or_else(|| path.file_name().map(Path::new)).unwrap_or(path);
    let parts: Vec<_> = relative.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

/// Sources of `input`: a folder, or the prefix or a file of an indexed dataset.
pub(super) fn find(input: &Path) -> Result<Vec<ForeignSource>> {
    let sources = if input.is_dir() { in_folder(input)? } else { in_file(input)? };
    let nothing = || {
        Error::input(
            input,
            "holds no data that can be converted; expected manifest.json, index.json of MDS or *.idx of Megatron, there or in its subfolders",
        )
    };
    if sources.is_empty() {
        return Err(nothing());
    }
    check_splits(input, &sources)?;
    match sources.iter().find(|source| !is_source_name(&source.name)) {
        Some(source) => {
            let name = &source.name;
            Err(Error::input(
                input,
                format!("a source would be named {name:?}; rename the folder: expected {SOURCE_NAME}"),
            ))
        }
        None => Ok(sources),
    }
}

/// Names of splits; a further word may follow, as in `val_small`.
const SPLITS: [&str; 7] = ["train", "val", "valid", "validation", "test", "eval", "dev"];

/// Refuses the splits of one dataset as sources to train on together.
fn check_splits(input: &Path, sources: &[ForeignSource]) -> Result<()> {
    let is_split =
        |name: &&str| name.split(['_', '-', '.']).next().is_some_and(|word| SPLITS.contains(&word));
    let splits: Vec<_> = sources.iter().map(|source| source.name.as_str()).filter(is_split).collect();
    let [first, _, ..] = splits[..] else { return Ok(()) };
    let (all, example) = (splits.join(", "), input.join(first));
    Err(Error::input(
        input,
        format!(
            "holds the splits {all} of a dataset, and training on all of them would train on what is held out; convert one of them, such as {}",
            example.display()
        ),
    ))
}

fn in_folder(dir: &Path) -> Result<Vec<ForeignSource>> {
    let own_name = name_of(dir)?;
    if dir.join(super::mds::INDEX).is_file() {
        let parts = MdsDataset::open(dir)?.by_folder();
        let named = |(folder, dataset): (Option<String>, MdsDataset)| ForeignSource {
            name: folder.unwrap_or_else(|| own_name.clone()),
            data: ForeignData::Mds(dataset),
        };
        return Ok(parts.into_iter().map(named).collect());
    }
    let own = indexed(dir)?;
    if !own.is_empty() {
        return Ok(vec![ForeignSource { name: own_name, data: ForeignData::Megatron(own) }]);
    }
    let mut sources = Vec::new();
    for folder in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if folder.join(super::mds::INDEX).is_file() {
            sources.push(ForeignSource { name, data: ForeignData::Mds(MdsDataset::open(&folder)?) });
            continue;
        }
        let parts = indexed(&folder)?;
        if !parts.is_empty() {
            sources.push(ForeignSource { name, data: ForeignData::Megatron(parts) });
        }
    }
    one_kind(dir, sources)
}

/// Refuses sources of different formats, which differ in what they know of documents.
fn one_kind(dir: &Path, sources: Vec<ForeignSource>) -> Result<Vec<ForeignSource>> {
    let mds = sources.iter().filter(|source| matches!(source.data, ForeignData::Mds(_))).count();
    if mds == 0 || mds == sources.len() {
        return Ok(sources);
    }
    Err(Error::input(dir, "has subfolders of MDS and of Megatron data; convert them one by one"))
}

/// Source of the dataset with this prefix or file.
fn in_file(input: &Path) -> Result<Vec<ForeignSource>> {
    let is_part = input.extension().is_some_and(|end| end == "idx" || end == "bin");
    let prefix = if is_part { input.with_extension("") } else { input.to_owned() };
    if !megatron::file(&prefix, ".idx").is_file() {
        return Err(Error::input(
            input,
            "is neither a folder nor the name of an indexed dataset; check the path",
        ));
    }
    let name = prefix.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let data = ForeignData::Megatron(vec![(prefix.clone(), IndexedDataset::open(&prefix)?)]);
    Ok(vec![ForeignSource { name, data }])
}

fn indexed(dir: &Path) -> Result<Vec<(PathBuf, IndexedDataset)>> {
    let is_index = |path: &PathBuf| path.extension().is_some_and(|end| end == "idx") && path.is_file();
    let open = |path: PathBuf| {
        let prefix = path.with_extension("");
        IndexedDataset::open(&prefix).map(|indexed| (prefix, indexed))
    };
    entries(dir)?.into_iter().filter(is_index).map(open).collect()
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let listing = std::fs::read_dir(dir).map_err(Error::io(dir, "listing"))?;
    let paths = listing.map(|entry| entry.map(|entry| entry.path()).map_err(Error::io(dir, "listing")));
    let mut paths = paths.collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn name_of(dir: &Path) -> Result<String> {
    let full = dir.canonicalize().map_err(Error::io(dir, "opening"))?;
    Ok(full.file_name().unwrap_or_default().to_string_lossy().into_owned())
}
