//! What can go wrong between raw documents and batches: run files, inputs, shards, resuming.

use std::fmt;
use std::path::{Path, PathBuf};

use mpt_tokenize::ErrorKind;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of another library below one of ours.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error of `mpt-data`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {action} failed: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The run file of a preparation cannot be read.
    #[error(
        "{}: the mix file cannot be read: {source}; name the TOML file that holds the `[[sources]]`, \
         by its path from the current folder", .path.display()
    )]
    MixFile {
        /// The path that was given.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A run file is not valid TOML, or a key has the wrong type or is missing.
    #[error("{}:{line}: {problem}", .path.display())]
    RunFileSyntax {
        /// The run file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A run file has a key, or names a kind, that nobody knows.
    #[error("{}:{line}: unknown {what} `{key}`{}; known here: {}", .path.display(), suggestion(.nearest), .known.join(", "))]
    UnknownKey {
        /// The run file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// "key" or "value".
        what: &'static str,
        /// The key as written.
        key: String,
        /// The known key nearest to it, if any is near.
        nearest: Option<String>,
        /// All keys known in this place.
        known: Vec<String>,
    },
    /// A key of a run file has an impossible value.
    #[error("{}: `{field}` is {actual}, expected {expected}", .path.display())]
    Config {
        /// The run file.
        path: PathBuf,
        /// The key, with the source it belongs to.
        field: String,
        /// What it must be.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// A key of a run file asks for something this build does not do.
    #[error("{}: `{field}` = {actual} is not supported yet; {instead}", .path.display())]
    Unsupported {
        /// The run file.
        path: PathBuf,
        /// The key, with the source it belongs to.
        field: String,
        /// What it is.
        actual: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// A path or pattern of a source leads to no file.
    #[error(
        "source `{source_name}`: no file matches {pattern}; {}", .hint.as_deref().unwrap_or("check `paths`, which are relative to the run file")
    )]
    NoInput {
        /// The source.
        source_name: String,
        /// The pattern, resolved against the run file's folder.
        pattern: String,
        /// What may be meant instead.
        hint: Option<String>,
    },
    /// A line of an input file cannot be used.
    #[error("{}:{line}: {problem}", .path.display())]
    BrokenLine {
        /// The input file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// An input file cannot be used.
    #[error("{}: {problem}", .path.display())]
    BrokenInput {
        /// The input file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        problem: String,
        /// What the library below answered, where one did.
        source: Option<Cause>,
    },
    /// An input file is not what it was when the work was planned.
    #[error(
        "{}: was changed while it was being read: it is not what it was when this began; nothing made of it is kept, \
         run the same again when the file is complete", .path.display()
    )]
    InputChanged {
        /// The input file.
        path: PathBuf,
    },
    /// A source has no document, or none is left.
    #[error(
        "source `{source_name}` is empty: of {documents} documents read none is left for training{}; \
         check `paths` and `filters`, or take the source out of the mix", drop_list(.drops)
    )]
    EmptySource {
        /// The source.
        source_name: String,
        /// Documents read.
        documents: u64,
        /// Documents dropped or held out, by rule.
        drops: Vec<(String, u64)>,
    },
    /// A source does not fill a single row or sequence.
    #[error(
        "source `{source_name}` has {tokens} tokens for {split}, less than one {what} of {needed}; \
         lower `{field}`, or give the source more text"
    )]
    SmallSource {
        /// The source.
        source_name: String,
        /// The split.
        split: &'static str,
        /// Tokens there are.
        tokens: u64,
        /// "row" or "sequence".
        what: &'static str,
        /// Tokens in it.
        needed: u64,
        /// The key to lower.
        field: &'static str,
    },
    /// A column filter names a field that no document of the source has.
    #[error(
        "source `{source_name}`: no document has the field `{field}` that a filter asks for; check its name"
    )]
    NoField {
        /// The source.
        source_name: String,
        /// The field.
        field: String,
    },
    /// A text of an input file could not be tokenized.
    #[error("{}: {source}", .path.display())]
    Tokenizer {
        /// The first file of the part that was being tokenized.
        path: PathBuf,
        /// The tokenizer's answer.
        source: mpt_tokenize::Error,
    },
    /// A token that the run file names is not in the vocabulary.
    #[error("{}: `{field}` is {token:?}, which the tokenizer does not have; name one of its special tokens, or \"\" for none", .path.display())]
    NoToken {
        /// The run file.
        path: PathBuf,
        /// `bos` or `eos`.
        field: &'static str,
        /// The token.
        token: String,
    },
    /// A stage of deduplication needs a model, and there is none to run.
    #[error("{}: `dedup` has a stage `semdedup`, which needs a model that this program cannot run", .path.display())]
    NoEmbedder {
        /// The run file.
        path: PathBuf,
    },
    /// The model could not make a vector of a document.
    #[error("document {id}: the model of `semdedup` failed: {problem}")]
    Embedder {
        /// The document.
        id: String,
        /// What is wrong.
        problem: String,
        /// The model's answer, where it gave one.
        source: Option<Cause>,
    },
    /// The output folder holds something else.
    #[error("{}: the folder is not empty and was not made by a data build; choose another folder, or empty it", .path.display())]
    NotOurs {
        /// The output folder.
        path: PathBuf,
    },
    /// The output folder holds data prepared from other inputs or settings.
    #[error("{}: this data was built differently ({}); choose another folder, or delete this one", .path.display(), .changes.join("; "))]
    Changed {
        /// The output folder.
        path: PathBuf,
        /// What is not the same now.
        changes: Vec<String>,
    },
    /// Another process is writing to the same place.
    #[error("{}: another process is writing here; wait for it, or name another place", .path.display())]
    Busy {
        /// The output folder or file.
        path: PathBuf,
    },
    /// Something is already where new output is to go.
    #[error("{}: there is something already; name a new place, or remove what is there", .path.display())]
    Taken {
        /// The output folder or file.
        path: PathBuf,
    },
    /// There is nothing left to plan.
    #[error("{}: this data is finished; use it, or choose another folder", .path.display())]
    AlreadyBuilt {
        /// The output folder.
        path: PathBuf,
    },
    /// Units are asked for where nothing was planned.
    #[error("{}: no plan of work units is here; plan them first", .path.display())]
    NoPlan {
        /// The output folder.
        path: PathBuf,
    },
    /// A unit is not in the plan.
    #[error("{}: the plan has no work unit `{id}`; plan again where the mix has changed", .path.display())]
    NoUnit {
        /// The output folder.
        path: PathBuf,
        /// The name asked for.
        id: String,
    },
    /// A commit before its time.
    #[error("{}: {missing} of {total} work units are missing, the first is `{first}`; make them first", .path.display())]
    MissingUnits {
        /// The output folder.
        path: PathBuf,
        /// The first missing one.
        first: String,
        /// How many are missing.
        missing: usize,
        /// How many there are.
        total: usize,
    },
    /// A work unit written earlier in this build is damaged.
    #[error("{}: {problem}; run the same build again, and it is made anew", .path.display())]
    Unit {
        /// The unit file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is no manifest.
    #[error("{}: {}", .path.display(), no_manifest(*.interrupted))]
    NoManifest {
        /// Where it would be.
        path: PathBuf,
        /// Whether a build was interrupted here.
        interrupted: bool,
    },
    /// A manifest is unusable.
    #[error("{}: {problem}", .path.display())]
    Manifest {
        /// The manifest file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
        /// What the library below answered, where one did.
        source: Option<Cause>,
    },
    /// A shard does not hold what the manifest says.
    #[error(transparent)]
    Shard(Damage),
    /// A full check found files that do not hold what the manifest says.
    #[error("{}: {} of the files are damaged; restore them, or remove them and run the same build again:{}", .path.display(), .files.len(), damage_list(.files))]
    Damaged {
        /// The data folder.
        path: PathBuf,
        /// What is wrong, in the order of the manifest.
        files: Vec<Damage>,
    },
    /// A loader is asked for what the data cannot give.
    #[error("`{field}` is {actual}, expected {expected}")]
    Loader {
        /// The field of `LoaderConfig`.
        field: &'static str,
        /// What it is.
        actual: String,
        /// What it must be.
        expected: String,
    },
    /// A cursor was made for something else than it is used with.
    #[error(
        "cannot resume: `{field}` is {actual}, but the run was started with {expected}; \
         resume with what it was started with, or start a new run"
    )]
    Cursor {
        /// The field that differs.
        field: &'static str,
        /// What the cursor holds.
        expected: String,
        /// What it is used with.
        actual: String,
    },
    /// A conversion between formats is asked for something it cannot do.
    #[error("`{option}`: {problem}")]
    Conversion {
        /// The option.
        option: &'static str,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Something is asked for that this build leaves out.
    #[error("{what}: this build is without the feature `{feature}`; {instead}")]
    NotBuilt {
        /// What asks for it: an address, or a key of a file.
        what: String,
        /// The feature of this crate that has it.
        feature: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// An address of an object store is wrong, or a setting without which the store cannot be asked.
    #[error("{url}: {problem}")]
    Address {
        /// The address, or the setting.
        url: String,
        /// What is wrong, and what to do.
        problem: String,
        /// The store's answer, where it gave one.
        source: Option<Cause>,
    },
    /// There is no object at an address.
    #[error("{url}: there is no such object; check the address and the credentials")]
    NoObject {
        /// The address.
        url: String,
    },
    /// An object is not what it was, or may not be read.
    #[error("{url}: {problem}")]
    Object {
        /// The address.
        url: String,
        /// What is wrong, and what to do.
        problem: String,
        /// The store's answer, where it gave one.
        source: Option<Cause>,
    },
    /// An object store does not answer, or answers with something else.
    #[error("{url}: {problem}")]
    Remote {
        /// The address.
        url: String,
        /// What is wrong.
        problem: String,
        /// The store's last answer, where it gave one.
        source: Option<Cause>,
    },
    /// The caller asked to stop; running the same again continues.
    #[error("interrupted; the same command continues where this one stopped")]
    Interrupted,
}

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => ErrorKind::of_io(source, ErrorKind::Data),
            Self::MixFile { source, .. } => ErrorKind::of_io(source, ErrorKind::Usage),
            Self::Tokenizer { source, .. } => source.kind(),
            Self::RunFileSyntax { .. }
            | Self::UnknownKey { .. }
            | Self::Config { .. }
            | Self::Unsupported { .. }
            | Self::NoInput { .. }
            | Self::NoField { .. }
            | Self::NoToken { .. }
            | Self::NoEmbedder { .. }
            | Self::NotOurs { .. }
            | Self::Changed { .. }
            | Self::Taken { .. }
            | Self::AlreadyBuilt { .. }
            | Self::NoPlan { .. }
            | Self::NoUnit { .. }
            | Self::Loader { .. }
            | Self::Conversion { .. }
            | Self::NotBuilt { .. }
            | Self::Address { .. } => ErrorKind::Usage,
            Self::BrokenLine { .. }
            | Self::BrokenInput { .. }
            | Self::InputChanged { .. }
            | Self::EmptySource { .. }
            | Self::SmallSource { .. }
            | Self::Embedder { .. }
            | Self::MissingUnits { .. }
            | Self::Unit { .. }
            | Self::NoManifest { .. }
            | Self::Manifest { .. }
            | Self::Shard(_)
            | Self::Damaged { .. }
            | Self::Cursor { .. }
            | Self::NoObject { .. }
            | Self::Object { .. } => ErrorKind::Data,
            Self::Busy { .. } | Self::Remote { .. } => ErrorKind::System,
            Self::Interrupted => ErrorKind::Interrupted,
        }
    }

    /// An [`Error::Io`] builder for `map_err`.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    /// An [`Error::BrokenInput`] from anything that can be shown.
    pub(crate) fn input(path: &Path, problem: impl fmt::Display) -> Self {
        Self::BrokenInput { path: path.to_owned(), problem: problem.to_string(), source: None }
    }

    /// An [`Error::BrokenInput`] at which a library stumbled.
    pub(crate) fn unread(path: &Path, problem: impl fmt::Display, error: impl Into<Cause>) -> Self {
        let problem = problem.to_string();
        Self::BrokenInput { path: path.to_owned(), problem, source: Some(error.into()) }
    }
}

/// A file that does not hold what the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The file, relative to the data folder.
    pub path: PathBuf,
    /// The row, from 0 in the file, where one row is known to be wrong.
    pub row: Option<u64>,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(row) = self.row {
            write!(f, "row {row}: ")?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Damage {}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|key| format!(", did you mean `{key}`?")).unwrap_or_default()
}

fn no_manifest(interrupted: bool) -> &'static str {
    if interrupted {
        "there is no manifest: the build here was interrupted; run the same build again and it continues"
    } else {
        "there is no manifest here; expected a folder of prepared data"
    }
}

fn drop_list(drops: &[(String, u64)]) -> String {
    let list: Vec<_> = drops.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
    if list.is_empty() { String::new() } else { format!(" ({})", list.join(", ")) }
}

fn damage_list(files: &[Damage]) -> String {
    files.iter().map(|damage| format!("\n  {damage}")).collect()
}
