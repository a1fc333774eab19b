//! What can go wrong with a model: its configuration, its weights, its inputs.

use std::path::{Path, PathBuf};

use crate::error_kind::ErrorKind;
use crate::mistaken::Mistaken;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of another library below one of ours.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error of `mpt-core`.
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
    /// A configuration file is not valid JSON, or a key has the wrong type.
    #[error("{}: {}", .path.display(), crate::quoted::quoted(&.source.to_string()))]
    ConfigSyntax {
        /// The configuration file.
        path: PathBuf,
        /// Line, column and what was expected.
        source: serde_json::Error,
    },
    /// A key of a configuration has an impossible value.
    #[error("{}: `{field}` is {actual}, expected {expected}", .path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// A key asks for something this build does not do.
    #[error("{}: `{field}` = {actual} is not supported yet; {instead}", .path.display())]
    Unsupported {
        /// The configuration file or folder.
        path: PathBuf,
        /// The key.
        field: &'static str,
        /// What it is.
        actual: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// A key that this build does not know asks for something.
    #[error("{}: `{field}` = {actual} is not supported; {instead}", .path.display())]
    UnsupportedOption {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        field: String,
        /// What it is.
        actual: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// A path names something other than a model.
    #[error("{}: this is {found}, not a model; {}", .path.display(), .found.instead())]
    NotAModel {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: Mistaken,
    },
    /// A file of a model was not downloaded, or not with the others.
    #[error("{}: {found}; expected {expected}", .path.display())]
    NotFetched {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be, and what to do.
        expected: &'static str,
    },
    /// A folder holds no weights in a known form.
    #[error("{}: no weights here; expected `model.safetensors`, `pytorch_model.bin` or an index of shards of either{hint}", .path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// What was found instead, with what to do.
        hint: String,
    },
    /// A weights file is damaged or hostile.
    #[error("{}: {found}; expected {expected}", .path.display())]
    WeightsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        found: String,
        /// What a sound file has.
        expected: &'static str,
        /// What the library below answered, where one did.
        source: Option<Cause>,
    },
    /// The configuration asks for a tensor that the weights do not hold.
    #[error("{}: tensor `{name}` is missing; config.json and the weights describe different models", .path.display())]
    MissingTensor {
        /// The weights file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{}: tensor `{name}` has shape {actual:?}, expected {expected:?} from config.json", .path.display())]
    TensorShape {
        /// The weights file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        actual: Vec<usize>,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
    },
    /// A tensor's dtype is not one that MPT weights have.
    #[error("{}: tensor `{name}` has dtype {actual}, expected {expected}", .path.display())]
    TensorDtype {
        /// The weights file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its dtype.
        actual: String,
        /// What is read, and what to do.
        expected: &'static str,
    },
    /// A tensor's values do not go into a form with shared scales.
    #[error("{}: tensor `{name}` cannot be quantized to {form}: {reason}", .path.display())]
    Unquantizable {
        /// The weights file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The form.
        form: crate::dtype::WeightDtype,
        /// The value that is in the way, and what to do.
        reason: String,
    },
    /// The weights hold a tensor that the configuration does not account for.
    #[error("{}: tensor `{name}` belongs to no part of the model that config.json describes; {instead}", .path.display())]
    UnexpectedTensor {
        /// The weights file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What to do.
        instead: &'static str,
    },
    /// A parameter received no gradient in a backward pass.
    #[error("parameter `{name}` received no gradient")]
    NoGradient {
        /// Its checkpoint name.
        name: String,
    },
    /// This build cannot compute on a device.
    #[error("device {device}: this build computes on the CPU alone; use `cpu`")]
    Device {
        /// The device.
        device: String,
    },
    /// An argument of an op has the wrong shape or content.
    #[error("{op}: `{argument}` is {actual}, expected {expected}")]
    Shape {
        /// The op.
        op: &'static str,
        /// The argument.
        argument: &'static str,
        /// What it is.
        actual: String,
        /// What it must be.
        expected: String,
    },
    /// An attention mask has the wrong length, or leaves gaps.
    #[error("attention mask: `{argument}` is {actual}, expected {expected}")]
    Mask {
        /// The argument.
        argument: &'static str,
        /// What it is.
        actual: String,
        /// What it must be.
        expected: String,
    },
    /// A token id lies outside the vocabulary.
    #[error(
        "token id {id} at position {position} is outside the vocabulary of {vocab_size} ids; is this the model's tokenizer?"
    )]
    TokenId {
        /// The id.
        id: u32,
        /// Its index in the input.
        position: usize,
        /// Number of ids.
        vocab_size: usize,
    },
    /// A sequence is longer than the positions or the cache allow.
    #[error("a sequence of {actual} tokens does not fit {limit}; {instead}")]
    TooLong {
        /// Tokens needed.
        actual: usize,
        /// What limits them.
        limit: String,
        /// What to do.
        instead: &'static str,
    },
    /// A pool of keys and values has no room for the new tokens of a batch; nothing has changed.
    #[error(
        "a batch needs room for {needed} tokens in the key/value pool, which has room for {free} of {capacity}; \
         run fewer sequences at a time, remove or truncate some, or make a larger pool"
    )]
    PoolFull {
        /// Tokens of the pages that the batch needs beyond those its sequences have.
        needed: usize,
        /// Tokens of the pages that are free.
        free: usize,
        /// Tokens of all pages.
        capacity: usize,
    },
    /// The system gives no memory.
    #[error(
        "{bytes} bytes of memory cannot be had: {source}; free memory, or ask for less: a smaller model or form, a shorter or smaller batch"
    )]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The system gives no memory for a cache.
    #[error(
        "a cache of {bytes} bytes finds no room: {source}; use fewer or shorter sequences, or a smaller cache dtype"
    )]
    NoRoom {
        /// Bytes of the whole cache.
        bytes: u64,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The variable `MPT_CPU_LEVEL` names no instruction set level.
    #[error(
        "the variable MPT_CPU_LEVEL is `{name}`, expected one of {expected}; unset it for the best this processor has"
    )]
    CpuLevel {
        /// What it names.
        name: String,
        /// The levels.
        expected: String,
    },
    /// The number of threads cannot be set.
    #[error("the thread pool cannot be set to {threads} threads: {reason}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// Why not.
        reason: String,
        /// What the library below answered, where one did.
        source: Option<Cause>,
    },
    /// The caller ended the work.
    #[error("interrupted; nothing was left half-written")]
    Interrupted,
    /// The tensor library failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => ErrorKind::of_io(source, ErrorKind::Data),
            Self::ConfigSyntax { .. }
            | Self::Config { .. }
            | Self::Unsupported { .. }
            | Self::UnsupportedOption { .. }
            | Self::NotAModel { .. }
            | Self::NotFetched { .. }
            | Self::NoWeights { .. }
            | Self::WeightsFile { .. }
            | Self::MissingTensor { .. }
            | Self::TensorShape { .. }
            | Self::TensorDtype { .. }
            | Self::Unquantizable { .. }
            | Self::UnexpectedTensor { .. }
            | Self::Mask { .. }
            | Self::TokenId { .. } => ErrorKind::Data,
            Self::TooLong { .. } | Self::CpuLevel { .. } => ErrorKind::Usage,
            Self::Device { .. }
            | Self::PoolFull { .. }
            | Self::Memory { .. }
            | Self::NoRoom { .. }
            | Self::Threads { .. } => ErrorKind::System,
            Self::NoGradient { .. } | Self::Shape { .. } => ErrorKind::Bug,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::Candle(error) => error.into(),
        }
    }

    /// An [`Error::Io`] builder for `map_err`.
    pub(crate) fn io(path: &std::path::Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}

/// An error about the content of `path`.
pub(crate) fn damaged(path: &Path, found: impl Into<String>, expected: &'static str) -> Error {
    Error::WeightsFile { path: path.to_owned(), found: found.into(), expected, source: None }
}

/// An error about the content of `path` at which a library stumbled.
pub(crate) fn damaged_by(
    path: &Path,
    found: String,
    expected: &'static str,
    error: impl Into<Cause>,
) -> Error {
    Error::WeightsFile { path: path.to_owned(), found, expected, source: Some(error.into()) }
}
