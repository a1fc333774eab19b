//! Manifest: the plan of the data, its counts, and the hash of every file. Its presence means that the data is complete.

mod check;
mod contents;
mod file_table;
mod verify;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::contents::{
    ManifestContents, Plan, SourcePlan, SourceRecord, Split, SplitRecord, TokenAccount,
};
use crate::blob::Blob;
use crate::document_tables::DocumentIndex;
use crate::durable;
use crate::error::{Error, Result};
use crate::hash;
use crate::layout::RowLayout;
use crate::remote;

/// Name of the manifest in its folder.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Name of the tokenizer's copy in the folder.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// Name of the table of kept documents.
pub(crate) const DOCUMENTS: &str = "documents.parquet";
/// Name of the ledger of dropped documents.
pub(crate) const DROPS: &str = "drops.parquet";
/// Name of the folder of work units, in the output folder of a build.
pub(crate) const UNITS: &str = ".units";
/// Remedy for a manifest that cannot be used, and whose files are not known to be ours.
const RESTORE: &str = "restore it, or delete this folder and build the data again";
/// Most shards in the manifest itself; more of them are in a table beside it.
const MAX_FILES: usize = 1024;
/// Version of everything that is written: shards, tables, units, rules.
pub(crate) const FORMAT: u32 = 2;

/// Prepared data: a folder of shards, and its manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    dir: PathBuf,
    tokenizer: PathBuf,
    root: String,
    contents: Arc<ManifestContents>,
}

/// Manifest file: the contents and their hash.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    root: String,
    contents: ManifestContents,
}

impl Manifest {
    /// Opens prepared data, in a folder or at an address of an object store.
    ///
    /// # Errors
    /// [`Error::NoManifest`]; [`Error::Manifest`] for a manifest that is damaged, impossible or of another version;
    /// [`Error::Remote`].
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(MANIFEST);
        let wrong = |problem: String| Error::Manifest { path: path.clone(), problem, source: None };
        let text = read(&path)?;
        let wire: ManifestFile = serde_json::from_slice(&text).map_err(|error| Error::Manifest {
            path: path.clone(),
            problem: format!("not a manifest of this version ({error}); {RESTORE}"),
            source: Some(error.into()),
        })?;
        let root = root_of(&wire.contents);
        if root != wire.root {
            return Err(wrong(format!(
                "its content has the hash {root}, expected {}; it was changed; {RESTORE}",
                wire.root
            )));
        }
        if wire.contents.plan.format != FORMAT {
            return Err(wrong(format!("format {}, expected {FORMAT}; {RESTORE}", wire.contents.plan.format)));
        }
        let mut contents = wire.contents;
        check::check(&contents).map_err(&wrong)?;
        if let Some(table) = &contents.file_table {
            file_table::read(dir, table, &mut contents.sources)?;
        }
        check::check_shards(&contents).map_err(&wrong)?;
        let tokenizer = tokenizer(dir, &contents)?;
        Ok(Self { dir: dir.to_owned(), tokenizer, root, contents: Arc::new(contents) })
    }

    /// Writes the manifest of the folder, which completes the data.
    pub(crate) fn commit(dir: &Path, mut contents: ManifestContents) -> Result<Self> {
        let shards = contents.sources.iter().map(|source| source.train.files.len() + source.eval.files.len());
        let whole = if shards.sum::<usize>() > MAX_FILES {
            contents.file_table = Some(file_table::write(dir, &contents.sources)?);
            let whole = contents.clone();
            for source in &mut contents.sources {
                source.train.files.clear();
                source.eval.files.clear();
            }
            Some(whole)
        } else {
            None
        };
        let root = root_of(&contents);
        let wire = ManifestFile { root: root.clone(), contents };
        let mut text =
            serde_json::to_vec_pretty(&wire).expect("manifests have string keys and finite numbers");
        text.push(b'\n');
        durable::write_file(&dir.join(MANIFEST), &text)?;
        let contents = Arc::new(whole.unwrap_or(wire.contents));
        Ok(Self { dir: dir.to_owned(), tokenizer: dir.join(TOKENIZER), root, contents })
    }

    /// Folder, or address.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Hash of the contents, which name the plan and every file. Two folders with the same root hold the same data.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Contents of the manifest.
    pub fn contents(&self) -> &ManifestContents {
        &self.contents
    }

    /// Plan of the data.
    pub fn plan(&self) -> &Plan {
        &self.contents.plan
    }

    /// Sources, in order.
    pub fn sources(&self) -> &[SourceRecord] {
        &self.contents.sources
    }

    /// Path of the data's tokenizer on this machine, wherever the data is.
    pub fn tokenizer_path(&self) -> PathBuf {
        self.tokenizer.clone()
    }

    /// Bytes of a token in the shards.
    pub fn token_bytes(&self) -> usize {
        self.layout().token_bytes
    }

    /// Tokens of a split over all sources, in full rows.
    pub fn tokens(&self, split: Split) -> u64 {
        let rows: u64 = self.sources().iter().map(|source| source.split(split).rows).sum();
        rows * self.plan().row_tokens as u64
    }

    /// Index from ordinals to the ids of documents.
    ///
    /// # Errors
    /// [`Error::Shard`] for a missing or damaged index.
    pub fn documents(&self) -> Result<DocumentIndex> {
        DocumentIndex::open(&self.dir, DOCUMENTS)
    }

    pub(crate) fn layout(&self) -> RowLayout {
        self.plan().layout()
    }
}

fn root_of(contents: &ManifestContents) -> String {
    hash::sha256(&serde_json::to_vec(contents).expect("manifests have string keys and finite numbers"))
}

/// Text of a manifest file.
fn read(path: &Path) -> Result<Vec<u8>> {
    let dir = path.parent().unwrap_or(Path::new(""));
    let mut text = Vec::new();
    let file = Blob::open(path).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Error::NoManifest { path: path.to_owned(), interrupted: dir.join(UNITS).is_dir() }
        }
        error => error,
    })?;
    file.into_read().read_to_end(&mut text).map_err(Error::io(path, "reading"))?;
    Ok(text)
}

/// Path of the tokenizer; that of data at an address is copied to this machine.
fn tokenizer(dir: &Path, contents: &ManifestContents) -> Result<PathBuf> {
    let copy = contents.files.iter().find(|file| file.name == TOKENIZER);
    match copy.filter(|_| remote::is_remote(dir)) {
        Some(file) => remote::local_copy(dir, &file.name, &file.sha256),
        None => Ok(dir.join(TOKENIZER)),
    }
}
