//! The manifest: what was prepared, from what, and the hash of every file. Its presence means that the data is complete.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::blob::Blob;
use crate::config::{Format, OnBadLine};
use crate::dedup::{Dedup, StageKind, StageReport};
use crate::documents::DocumentIndex;
use crate::durable;
use crate::error::{Damage, Error, Result};
use crate::file_table;
use crate::filter::Filter;
use crate::hash;
use crate::mixing::{Mixing, Share};
use crate::progress::{Progress, Shared, Silent, Stage, step};
use crate::remote;
use crate::shard::{Group, RowLayout, Scratch, ShardReader};

/// The name of the manifest in its folder.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The name of the copy of the tokenizer in the folder.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// The index of the documents that stayed.
pub(crate) const DOCUMENTS: &str = "documents.parquet";
/// The ledger of the documents that did not.
pub(crate) const DROPS: &str = "drops.parquet";
/// Shards that stand in the manifest itself at most; more of them stand in a table beside it.
const MAX_FILES: usize = 1024;
/// The version of everything that is written: shards, tables, units, rules.
pub(crate) const FORMAT: u32 = 2;

/// Prepared data: a folder of shards and what is known of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    dir: PathBuf,
    tokenizer: PathBuf,
    root: String,
    contents: Arc<Contents>,
}

/// What a manifest holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// What the data was made from and how: the same plan gives the same bytes.
    pub plan: Plan,
    /// Id of the token before each document.
    pub bos_id: Option<u32>,
    /// Id of the token after each document.
    pub eos_id: Option<u32>,
    /// What became of each source, in the order of the plan.
    pub sources: Vec<SourceRecord>,
    /// What each stage of deduplication did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dedup: Vec<StageReport>,
    /// The other files of the folder.
    pub files: Vec<PlainFile>,
    /// The table of the shards, where they are so many that they do not stand here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_table: Option<PlainFile>,
}

/// What data is made from and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of the format and of all rules.
    pub format: u32,
    /// Seed of the held-out split, and the default seed of the order.
    pub seed: u64,
    /// Tokens in a sample, by default.
    pub seq_len: usize,
    /// Tokens in a row.
    pub row_tokens: usize,
    /// Which copies were dropped, and which parts of documents.
    pub dedup: Dedup,
    /// What decides the embeddings, where a stage of deduplication needs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedder: Option<String>,
    /// The share of documents held out.
    pub eval_fraction: f64,
    /// The token before each document; empty for none.
    pub bos: String,
    /// The token after each document; empty for none.
    pub eos: String,
    /// SHA-256 of the `tokenizer.json`.
    pub tokenizer: String,
    /// Ids the tokenizer can give: the highest and one more.
    pub vocab_size: usize,
    /// How samples are drawn and ordered, by default.
    #[serde(default, skip_serializing_if = "Mixing::is_default")]
    pub mixing: Mixing,
    /// The sources, in order.
    pub sources: Vec<SourcePlan>,
}

/// What a source is made from and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePlan {
    /// Its name.
    pub name: String,
    /// What it gets of the training samples.
    pub proportion: Share,
    /// What the files hold.
    pub format: Format,
    /// The field with the text.
    pub text_field: String,
    /// The field with the id, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_field: Option<String>,
    /// The type of the tokens, where the files hold tokens and do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_dtype: Option<String>,
    /// The filters, in order; files that they name are named without their folders.
    pub filters: Vec<Filter>,
    /// The files that the filters name, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<PlainFile>,
    /// The stages of deduplication that it took part in; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<Vec<StageKind>>,
    /// What happened where there should be a document and was none.
    pub on_bad_line: OnBadLine,
    /// The input files, in order.
    pub inputs: Vec<PlainFile>,
}

/// A file and its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainFile {
    /// Its name: of an input, relative to the fixed part of its pattern; of an output, relative to the folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hex; of an input in an object store, the store's tag or when it was written.
    pub sha256: String,
}

/// What became of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    /// Its name.
    pub name: String,
    /// What it gets of the training samples.
    pub proportion: Share,
    /// Documents read, and lines that are none.
    pub documents: u64,
    /// Documents dropped, by rule.
    pub drops: BTreeMap<String, u64>,
    /// What became of its tokens.
    pub tokens: TokenAccount,
    /// What is for training.
    pub train: SplitRecord,
    /// What is held out.
    pub eval: SplitRecord,
}

/// What became of the tokens of a source, with those before and after each document: always
/// `tokens_read = tokens_kept + tokens_dropped + tokens_edited_away`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenAccount {
    /// Tokens of all documents as they were read.
    pub tokens_read: u64,
    /// Tokens of the documents that stayed, as they stayed: those of both splits.
    pub tokens_kept: u64,
    /// Tokens of the documents dropped, as they were read.
    pub tokens_dropped: u64,
    /// Of the documents that stayed, tokens as read less tokens as they stayed; below zero where filters put in longer texts.
    pub tokens_edited_away: i64,
    /// Documents that stayed with another text than was read.
    pub documents_edited: u64,
}

impl TokenAccount {
    /// Enters a document that was dropped.
    pub(crate) fn drop(&mut self, read: u64) {
        self.tokens_read += read;
        self.tokens_dropped += read;
    }

    /// Enters a document that stayed.
    pub(crate) fn keep(&mut self, read: u64, kept: u64, is_edited: bool) {
        self.tokens_read += read;
        self.tokens_kept += kept;
        self.tokens_edited_away += read as i64 - kept as i64;
        self.documents_edited += u64::from(is_edited);
    }
}

/// One split of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRecord {
    /// Documents.
    pub documents: u64,
    /// The ordinal of the first of them; they are numbered without gaps.
    pub first_document: u64,
    /// Bytes of their texts.
    pub text_bytes: u64,
    /// Their tokens, with those before and after each document.
    pub tokens: u64,
    /// Full rows.
    pub rows: u64,
    /// Tokens at the end that did not fill a row and were left out.
    pub tail_tokens: u64,
    /// The shards, in order.
    pub files: Vec<FileRecord>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its path relative to the folder, with `/`.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// The documents at token 0 of its first and of its last row; files of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<[u64; 2]>,
    /// Where its rows are.
    pub groups: Vec<Group>,
}

/// A part of the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For training.
    Train,
    /// Held out for evaluation.
    Eval,
}

impl Split {
    /// Both, in the order in which documents are numbered.
    pub const ALL: [Self; 2] = [Self::Train, Self::Eval];

    /// `train` or `eval`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Eval => "eval",
        }
    }
}

impl SourceRecord {
    /// One of its splits.
    pub fn split(&self, split: Split) -> &SplitRecord {
        match split {
            Split::Train => &self.train,
            Split::Eval => &self.eval,
        }
    }
}

/// The manifest file: the contents, and the hash that names them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    root: String,
    contents: Contents,
}

impl Manifest {
    /// Opens prepared data, in a folder or at an address of an object store.
    ///
    /// # Errors
    /// [`Error::Manifest`] when there is no manifest, or it is damaged or of another version; [`Error::Remote`].
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(MANIFEST);
        let wrong = |problem: String| Error::Manifest { path: path.clone(), problem };
        let text = read(&path, &wrong)?;
        let wire: Wire = serde_json::from_slice(&text).map_err(|error| {
            wrong(format!("not a manifest of this version ({error}); build the data again"))
        })?;
        let root = root_of(&wire.contents);
        if root != wire.root {
            return Err(wrong(format!(
                "its content has the hash {root}, expected {}; it was changed, restore it or build again",
                wire.root
            )));
        }
        if wire.contents.plan.format != FORMAT {
            return Err(wrong(format!(
                "format {}, expected {FORMAT}; build the data again",
                wire.contents.plan.format
            )));
        }
        let mut contents = wire.contents;
        if let Some(table) = &contents.file_table {
            file_table::read(dir, table, &mut contents.sources)?;
        }
        let tokenizer = tokenizer(dir, &contents)?;
        Ok(Self { dir: dir.to_owned(), tokenizer, root, contents: Arc::new(contents) })
    }

    /// Writes the manifest of the folder: from now on the data is complete.
    pub(crate) fn commit(dir: &Path, mut contents: Contents) -> Result<Self> {
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
        let wire = Wire { root: root.clone(), contents };
        let mut text =
            serde_json::to_vec_pretty(&wire).expect("manifests have string keys and finite numbers");
        text.push(b'\n');
        durable::write_file(&dir.join(MANIFEST), &text)?;
        let contents = Arc::new(whole.unwrap_or(wire.contents));
        Ok(Self { dir: dir.to_owned(), tokenizer: dir.join(TOKENIZER), root, contents })
    }

    /// The folder, or the address.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The hash of everything: contents, files, plan. Two folders with the same root hold the same data.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// All that the manifest says.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// What the data was made from and how.
    pub fn plan(&self) -> &Plan {
        &self.contents.plan
    }

    /// The sources, in order.
    pub fn sources(&self) -> &[SourceRecord] {
        &self.contents.sources
    }

    /// The copy of the tokenizer that lies with the data; on this machine, wherever the data is.
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

    /// The index from ordinals to the documents' own ids.
    ///
    /// # Errors
    /// [`Error::Shard`] when it is missing or damaged.
    pub fn documents(&self) -> Result<DocumentIndex> {
        DocumentIndex::open(&self.dir, DOCUMENTS)
    }

    /// Checks every file and every row.
    ///
    /// # Errors
    /// [`Error::Damaged`] lists every file that does not hold what it should.
    pub fn verify(&self) -> Result<()> {
        let files = self.examine(&mut Silent)?;
        if files.is_empty() { Ok(()) } else { Err(Error::Damaged { path: self.dir.clone(), files }) }
    }

    /// Checks every file and every row, and lists what is wrong, in the order of the manifest. Empty: nothing is.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read at all, [`Error::Interrupted`] when `progress` says so.
    pub fn examine(&self, progress: &mut dyn Progress) -> Result<Vec<Damage>> {
        let shards: Vec<_> = self.shards().collect();
        let total =
            shards.iter().map(|file| file.bytes).chain(self.plain_files().map(|file| file.bytes)).sum();
        progress.start(Stage::Verify, total);
        let shared: Shared<'_, '_> = Mutex::new(&mut *progress);
        let shards =
            shards.par_iter().map(|file| self.examine_shard(file, &shared)).collect::<Result<Vec<_>>>()?;
        let plain: Vec<_> = self.plain_files().collect();
        let plain =
            plain.par_iter().map(|file| self.examine_plain(file, &shared)).collect::<Result<Vec<_>>>()?;
        progress.finish();
        Ok(shards.into_iter().chain(plain).flatten().collect())
    }

    pub(crate) fn layout(&self) -> RowLayout {
        RowLayout::new(self.plan().row_tokens, self.plan().vocab_size)
    }

    fn plain_files(&self) -> impl Iterator<Item = &PlainFile> {
        self.contents.files.iter().chain(&self.contents.file_table)
    }

    fn shards(&self) -> impl Iterator<Item = &FileRecord> {
        Split::ALL
            .into_iter()
            .flat_map(|split| self.sources().iter().flat_map(move |source| &source.split(split).files))
    }

    /// What is wrong with a shard: first the rows that are, else what the whole file says.
    fn examine_shard(&self, file: &FileRecord, progress: &Shared<'_, '_>) -> Result<Vec<Damage>> {
        if remote::is_remote(&self.dir) {
            return remote::examine(&self.dir.join(&file.path), file, self.layout(), |bytes| {
                step(progress, bytes)
            });
        }
        let damage =
            |row, problem: &str| Damage { path: PathBuf::from(&file.path), row, problem: problem.to_owned() };
        let reader = match ShardReader::open(&self.dir, file, self.layout()) {
            Ok(reader) => reader,
            Err(Error::Shard(damage)) => return Ok(vec![damage]),
            Err(error) => return Err(error),
        };
        let (mut found, mut scratch) = (Vec::new(), Scratch::default());
        for row in 0..file.rows {
            match reader.rows(row, 1, &mut scratch, |_| ()) {
                Ok(()) => {}
                Err(Error::Shard(damage)) => found.push(damage),
                Err(error) => return Err(error),
            }
        }
        let (sha256, _) = hash::sha256_file(&self.dir.join(&file.path), |bytes| step(progress, bytes))?;
        if sha256 != file.sha256 && found.is_empty() {
            found.push(damage(None, "every row is sound, but the file is not as it was written (Parquet headers or footer); restore it, or build again"));
        }
        Ok(found)
    }

    fn examine_plain(&self, file: &PlainFile, progress: &Shared<'_, '_>) -> Result<Vec<Damage>> {
        let path = self.dir.join(&file.name);
        let damage = |problem: String| vec![Damage { path: PathBuf::from(&file.name), row: None, problem }];
        match hash::sha256_file(&path, |bytes| step(progress, bytes)) {
            Ok((_, bytes)) if bytes != file.bytes => {
                Ok(damage(crate::shard::length_problem(bytes, file.bytes)))
            }
            Ok((sha256, _)) if sha256 == file.sha256 => Ok(Vec::new()),
            Ok(_) => Ok(damage("is not as it was written; restore it, or build again".into())),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(damage("is missing; restore it, or build again".into()))
            }
            Err(error) => Err(error),
        }
    }
}

fn root_of(contents: &Contents) -> String {
    hash::sha256(&serde_json::to_vec(contents).expect("manifests have string keys and finite numbers"))
}

/// The text of a manifest file.
fn read(path: &Path, wrong: &dyn Fn(String) -> Error) -> Result<Vec<u8>> {
    let dir = path.parent().unwrap_or(Path::new(""));
    let mut text = Vec::new();
    let file = Blob::open(path).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => wrong(missing(dir)),
        error => error,
    })?;
    file.into_read().read_to_end(&mut text).map_err(Error::io(path, "reading"))?;
    Ok(text)
}

/// Where the tokenizer can be read from: that of an address is copied to this machine.
fn tokenizer(dir: &Path, contents: &Contents) -> Result<PathBuf> {
    let copy = contents.files.iter().find(|file| file.name == TOKENIZER);
    match copy.filter(|_| remote::is_remote(dir)) {
        Some(file) => remote::local_copy(dir, file),
        None => Ok(dir.join(TOKENIZER)),
    }
}

fn missing(dir: &Path) -> String {
    if dir.join(crate::prepare::UNITS).is_dir() {
        "there is no manifest: the build here was interrupted; run the same `mpt data build` again and it continues".into()
    } else {
        "there is no manifest here; expected a folder made by `mpt data build`".into()
    }
}
