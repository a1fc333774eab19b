//! What a caller sees of long work: stages that count up, and the question whether to go on.

use std::sync::Mutex;

use crate::error::{Error, Result};

/// Follows long work. A library owns no terminal: whoever draws bars implements this.
pub trait Progress: Send {
    /// A stage begins, of `total` steps.
    fn start(&mut self, stage: Phase, total: u64);

    /// `steps` more are done.
    fn advance(&mut self, steps: u64);

    /// The stage is done.
    fn finish(&mut self);

    /// Something the user should know.
    fn note(&mut self, note: &Note) {
        let _ = note;
    }

    /// Asked often; `false` ends the work with [`Error::Interrupted`](crate::Error::Interrupted) at the next safe place.
    fn keep_going(&mut self) -> bool {
        true
    }
}

/// A stage of long work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Input files are hashed; steps are bytes.
    Hash,
    /// Documents are read, filtered and tokenized; steps are bytes of the input files.
    Tokenize,
    /// A model reads documents for their meaning; steps are units.
    Embed,
    /// Documents are compared with each other; steps are units and bands.
    Dedup,
    /// Rows are packed and written; steps are documents.
    Pack,
    /// Files are checked; steps are bytes.
    Verify,
    /// Tokens are brought into another format; steps are bytes of the input.
    Convert,
}

impl Phase {
    /// What a bar for it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Tokenize => "tokenize",
            Self::Embed => "embed",
            Self::Dedup => "dedup",
            Self::Pack => "pack",
            Self::Verify => "verify",
            Self::Convert => "convert",
        }
    }

    /// What its steps are; `bytes` where a bar can show sizes.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Hash | Self::Tokenize | Self::Verify | Self::Convert => "bytes",
            Self::Embed | Self::Dedup => "steps",
            Self::Pack => "documents",
        }
    }
}

/// Something the user should know about preparation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The output is there already, made from the same inputs and settings: nothing was done.
    AlreadyBuilt,
    /// An earlier, interrupted build is continued: so many of its work units are done.
    Continued {
        /// Units found whole.
        done: usize,
        /// Units in all.
        total: usize,
    },
    /// Finished data lacks this file, or has it in another length: it is built again.
    Incomplete {
        /// The file, relative to the folder.
        file: String,
    },
    /// A plan counts exact copies; what these stages would drop, only a build can say.
    NotPlanned {
        /// The stages.
        stages: Vec<&'static str>,
    },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AlreadyBuilt => {
                f.write_str("already built from the same inputs and settings; nothing to do")
            }
            Self::Continued { done, total } => {
                write!(f, "continuing an interrupted build: {done} of {total} parts are tokenized")
            }
            Self::Incomplete { file } => {
                write!(f, "{file} is missing or not as long as it was; building again")
            }
            Self::NotPlanned { stages } => {
                let stages = stages.join(", ");
                write!(f, "a plan counts exact copies only: what {stages} would drop is known after a build")
            }
        }
    }
}

/// Progress shared by threads.
pub(crate) type Shared<'a, 'b> = Mutex<&'a mut (dyn Progress + 'b)>;

/// Tells of steps done, and stops the work if that is wanted.
pub(crate) fn step(progress: &Shared<'_, '_>, steps: u64) -> Result<()> {
    let mut progress = progress.lock().expect("no thread panicked while it told of progress");
    progress.advance(steps);
    if progress.keep_going() { Ok(()) } else { Err(Error::Interrupted) }
}

/// Follows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn start(&mut self, _: Phase, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn finish(&mut self) {}
}
