//! Readers: files of documents, streamed one document at a time in bounded memory.

mod json_line;
mod jsonl;
mod parquet;
mod text;

use std::path::Path;
use std::sync::atomic::AtomicU64;

use crate::config::{Format, OnBadLine, SourceConfig};
use crate::document::Document;
use crate::error::{Error, Result};
use crate::file_digest::FileDigest;
use crate::filter;

/// The longest text of one document: tokenizing takes many times as much memory.
pub const MAX_DOCUMENT_BYTES: usize = 64 << 20;

/// What a reader finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// A document.
    Document(Document),
    /// A line, row or file that is none, where the source says to skip those.
    BadLine {
        /// The file's name, and the line or row where there are several.
        id: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// What a reader takes out of each record.
#[derive(Debug)]
pub(crate) struct FieldNames<'a> {
    text: &'a str,
    id: Option<&'a str>,
    fields: Vec<&'a str>,
    on_bad_line: OnBadLine,
}

impl FieldNames<'_> {
    /// What to do with a line that is no document: hand it on, or fail with the error.
    fn bad_line(
        &self,
        id: String,
        problem: String,
        sink: RecordSink<'_>,
        error: impl FnOnce(String) -> Error,
    ) -> Result<()> {
        match self.on_bad_line {
            OnBadLine::Fail => Err(error(problem)),
            OnBadLine::Skip => sink(Record::BadLine { id, problem }),
        }
    }
}

/// One file to read.
#[derive(Debug)]
pub(crate) struct SourceFile<'a> {
    /// Where it is.
    pub(crate) path: &'a Path,
    /// What it is called in ids, wherever it is, and what it held when the work was planned.
    pub(crate) planned: &'a FileDigest,
    /// Counts the bytes of the file that were read.
    pub(crate) progress: &'a AtomicU64,
}

impl SourceFile<'_> {
    /// What it is called in ids.
    fn name(&self) -> &str {
        &self.planned.name
    }
}

/// Takes what is found one by one; an error stops the reader and is passed through.
pub(crate) type RecordSink<'a> = &'a mut dyn FnMut(Record) -> Result<()>;

/// Reads every document of a file, in order.
///
/// # Errors
/// [`Error::BrokenLine`] and [`Error::BrokenInput`] name the file, and the line where there are lines;
/// [`Error::InputChanged`] when what was read is not what was planned.
pub(crate) fn read(source: &SourceConfig, file: &SourceFile<'_>, sink: RecordSink<'_>) -> Result<()> {
    let fields = filter::fields(&source.filters);
    let wanted = FieldNames {
        text: &source.text_field,
        id: source.id_field.as_deref(),
        fields,
        on_bad_line: source.on_bad_line,
    };
    match source.format {
        Format::Jsonl => jsonl::read(&wanted, file, sink),
        Format::Parquet => parquet::read(&wanted, file, sink),
        Format::Text => text::read(&wanted, file, sink),
        Format::Mds | Format::Megatron => {
            Err(Error::input(file.path, "holds tokens, not text; convert it instead of building from it"))
        }
    }
}

/// The id field where the run file names none.
const DEFAULT_ID_FIELD: &str = "id";

/// Refuses a text that would need more memory than preparation has.
fn check_size(bytes: usize) -> std::result::Result<(), String> {
    if bytes <= MAX_DOCUMENT_BYTES {
        return Ok(());
    }
    Err(format!(
        "the document has {bytes} bytes, more than the {MAX_DOCUMENT_BYTES} a document may have; split it"
    ))
}

fn broken_line(path: &Path, line: u64, problem: impl Into<String>) -> Error {
    Error::BrokenLine { path: path.to_owned(), line, problem: problem.into() }
}
