//! Readers of sources: files of documents, streamed one document at a time in bounded memory.

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

/// Longest text of a document, in bytes: the tokenizer needs many times as much memory.
pub const MAX_DOCUMENT_BYTES: usize = 64 << 20;

/// Record of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// Document.
    Document(Document),
    /// Line, row or file that is no document, for a source that skips those.
    BadLine {
        /// Name of the file, and line or row where there are several.
        id: String,
        /// Problem, in words.
        problem: String,
    },
}

/// Names of the fields that a reader keeps, and the action for bad lines.
#[derive(Debug)]
pub(crate) struct FieldNames<'a> {
    text: &'a str,
    id: Option<&'a str>,
    fields: Vec<&'a str>,
    on_bad_line: OnBadLine,
}

impl FieldNames<'_> {
    /// Passes on a line that is no document, or fails with `error`.
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

/// File to read.
#[derive(Debug)]
pub(crate) struct SourceFile<'a> {
    /// Path or address.
    pub(crate) path: &'a Path,
    /// Name in ids, and content in the plan.
    pub(crate) planned: &'a FileDigest,
    /// Counter of the bytes read.
    pub(crate) progress: &'a AtomicU64,
}

impl SourceFile<'_> {
    /// Name in ids.
    fn name(&self) -> &str {
        &self.planned.name
    }
}

/// Receiver of records; its error stops the reader and is returned.
pub(crate) type RecordSink<'a> = &'a mut dyn FnMut(Record) -> Result<()>;

/// Reads every document of a file, in order.
///
/// # Errors
/// [`Error::BrokenLine`] and [`Error::BrokenInput`] name the file, and the line where there are lines;
/// [`Error::InputChanged`] for another content than the plan's.
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

/// Id field, where the run file names none.
const DEFAULT_ID_FIELD: &str = "id";

/// Refuses a text above [`MAX_DOCUMENT_BYTES`].
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
