//! What can go wrong with a training run.

use std::path::{Path, PathBuf};

use mpt_core::ErrorKind;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of another library below one of ours.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error of `mpt-train`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model, its weights or its kernels.
    #[error(transparent)]
    Model(#[from] mpt_core::Error),
    /// The run file or the data.
    #[cfg(feature = "run")]
    #[error(transparent)]
    Data(#[from] mpt_data::Error),
    /// The tokenizer.
    #[cfg(feature = "run")]
    #[error(transparent)]
    Tokenizer(#[from] mpt_tokenize::Error),
    /// A tensor operation.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
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
    /// The run file cannot be read.
    #[error(
        "{}: the run file cannot be read: {source}; name the TOML file of the run, by its path from the \
         current folder", .path.display()
    )]
    RunFile {
        /// The path that was given.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A key of the run file has an impossible value.
    #[error("{}: `{field}` is {actual}, expected {expected}", .path.display())]
    Config {
        /// The run file.
        path: PathBuf,
        /// The key.
        field: String,
        /// What it is.
        actual: String,
        /// What it must be.
        expected: String,
    },
    /// A setting that is applied over a run file is not of the form `a.b=value`.
    #[error("setting `{text}`: {problem}; write it as `train.steps=500` or `optimizer.kind=\"lion\"`")]
    Override {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A resumed run differs from the one that wrote the checkpoint.
    #[error(
        "{}: cannot resume: `{field}` is {actual}, but the run was started with {expected}; \
         set it back{}, or start anew in another `run_dir`", .path.display(), from_there(*.rescues)
    )]
    Changed {
        /// The checkpoint.
        path: PathBuf,
        /// The key.
        field: String,
        /// What it is now.
        actual: String,
        /// What it was.
        expected: String,
        /// Whether it may change where the checkpoint is named to go on from.
        rescues: bool,
    },
    /// A checkpoint lacks something or holds something else than expected.
    #[error(
        "{}: {problem}; name an older checkpoint, or start anew in another `run_dir`", .path.display()
    )]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What a library below answered, where one did.
        source: Option<Cause>,
    },
    /// A new run is to begin in a folder that holds one.
    #[error("{}: holds checkpoints of a run already; go on with it, or choose another `run_dir`", .path.display())]
    RunExists {
        /// The run folder.
        path: PathBuf,
    },
    /// Another process trains in the same folder.
    #[error("{}: another process is training here; wait for it, or choose another `run_dir`", .path.display())]
    Busy {
        /// The run folder.
        path: PathBuf,
    },
    /// The loss, the gradient or a weight became infinite or NaN.
    #[error(
        "step {step}: the {what} is {value}; {} a lower `optimizer.lr`, a longer `schedule.warmup_steps` or a \
         lower `train.clip_norm`", rescue(.checkpoint.as_deref())
    )]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// Loss, gradient norm, or a weight by its name.
        what: String,
        /// Its value.
        value: f64,
        /// The last checkpoint, if there is one.
        checkpoint: Option<PathBuf>,
    },
}

/// A way out of changed settings, where there is one.
fn from_there(rescues: bool) -> &'static str {
    if rescues { ", or name the checkpoint to change it from there" } else { "" }
}

/// What to do after a divergence.
fn rescue(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        Some(path) => format!("the last checkpoint, {}, is sound: go on from it with", path.display()),
        None => "there is no checkpoint yet: start again with".to_owned(),
    }
}

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Model(error) => error.kind(),
            #[cfg(feature = "run")]
            Self::Data(error) => kind_of_data(error.kind()),
            #[cfg(feature = "run")]
            Self::Tokenizer(error) => kind_of_data(error.kind()),
            Self::Tensor(error) => error.into(),
            Self::Io { source, .. } => ErrorKind::of_io(source, ErrorKind::Data),
            Self::RunFile { source, .. } => ErrorKind::of_io(source, ErrorKind::Usage),
            Self::Config { .. } | Self::Override { .. } | Self::Changed { .. } | Self::RunExists { .. } => {
                ErrorKind::Usage
            }
            Self::Checkpoint { .. } => ErrorKind::Data,
            Self::Busy { .. } => ErrorKind::System,
            Self::NotFinite { .. } => ErrorKind::NotFinite,
        }
    }

    /// Names the file in an operating-system error.
    #[cfg(feature = "run")]
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    /// The same error, naming the last checkpoint where the run diverged.
    #[cfg(feature = "run")]
    pub(crate) fn with_checkpoint(self, latest: Option<PathBuf>) -> Self {
        match self {
            Self::NotFinite { step, what, value, .. } => {
                Self::NotFinite { step, what, value, checkpoint: latest }
            }
            other => other,
        }
    }

    /// A checkpoint with a problem.
    pub(crate) fn checkpoint(path: &Path, problem: impl ToString) -> Self {
        Self::Checkpoint { path: path.to_owned(), problem: problem.to_string(), source: None }
    }

    /// A checkpoint with a file that cannot be read.
    #[cfg(feature = "run")]
    pub(crate) fn unread(path: &Path, error: std::io::Error) -> Self {
        let problem = format!("reading failed: {error}");
        Self::Checkpoint { path: path.to_owned(), problem, source: Some(error.into()) }
    }

    /// A checkpoint with a file that holds something else.
    pub(crate) fn unparsed(path: &Path, error: impl Into<Cause>) -> Self {
        let source = error.into();
        Self::Checkpoint { path: path.to_owned(), problem: source.to_string(), source: Some(source) }
    }
}

/// Kind of an error of `mpt-data` or `mpt-tokenize`, which have kinds of their own.
#[cfg(feature = "run")]
fn kind_of_data(kind: mpt_data::ErrorKind) -> ErrorKind {
    use mpt_data::ErrorKind as K;
    match kind {
        K::Usage => ErrorKind::Usage,
        K::Data => ErrorKind::Data,
        K::System => ErrorKind::System,
        K::Interrupted => ErrorKind::Interrupted,
        K::Bug => ErrorKind::Bug,
    }
}
