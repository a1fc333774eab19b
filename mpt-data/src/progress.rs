//! Progress of long work: phases that count up, notes, and interruption.

use std::sync::Mutex;

use crate::error::{Error, Result};

/// Observer of long work. A library owns no terminal: a program that draws bars implements this.
pub trait Progress: Send {
    /// Begins a phase of `total` steps.
    fn start(&mut self, stage: Phase, total: u64);

    /// Advances the phase by `steps`.
    fn advance(&mut self, steps: u64);

    /// Ends the phase.
    fn finish(&mut self);

    /// Reports a note to the user.
    fn note(&mut self, note: &Note) {
        let _ = note;
    }

    /// Whether to go on, which is asked often; `false` ends the work with [`Error::Interrupted`](crate::Error::Interrupted) at the next safe place.
    fn keep_going(&mut self) -> bool {
        true
    }
}

/// Phase of long work.
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
    /// Label of a progress bar.
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

    /// Unit of the steps; `bytes` where a bar can show sizes.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Hash | Self::Tokenize | Self::Verify | Self::Convert => "bytes",
            Self::Embed | Self::Dedup => "steps",
            Self::Pack => "documents",
        }
    }
}

/// Note to the user about a preparation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// Complete output of the same inputs and settings: nothing was done.
    AlreadyBuilt,
    /// Continuation of an interrupted build.
    Continued {
        /// Complete units.
        done: usize,
        /// Units in all.
        total: usize,
    },
    /// Missing or changed file of complete data, which is built again.
    Incomplete {
        /// File, relative to the folder.
        file: String,
    },
    /// Stages of deduplication that a plan does not count: it counts exact copies alone.
    NotPlanned {
        /// Names of the stages.
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

/// Progress that threads share.
pub(crate) type Shared<'a, 'b> = Mutex<&'a mut (dyn Progress + 'b)>;

/// Advances shared progress; [`Error::Interrupted`] when the caller asks to stop.
pub(crate) fn advance(progress: &Shared<'_, '_>, steps: u64) -> Result<()> {
    let mut progress = progress.lock().expect("no thread panicked while it told of progress");
    progress.advance(steps);
    if progress.keep_going() { Ok(()) } else { Err(Error::Interrupted) }
}

/// Observer that ignores all progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn start(&mut self, _: Phase, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn finish(&mut self) {}
}
