//! Reader of plain text: one document per file, whose id is the file's name.

use std::io::Read;

use super::{FieldNames, MAX_DOCUMENT_BYTES, Record, RecordSink, SourceFile, check_size};
use crate::compressed::{self, UTF8_BOM};
use crate::document::Document;
use crate::error::{Error, Result};

pub(super) fn read(wanted: &FieldNames<'_>, file: &SourceFile<'_>, sink: RecordSink<'_>) -> Result<()> {
    let mut bytes = Vec::new();
    let mut content = compressed::open(file.path, file.progress)?;
    let kind = content.kind()?;
    let mut limited = content.by_ref().take(MAX_DOCUMENT_BYTES as u64 + 1);
    limited.read_to_end(&mut bytes).map_err(|error| compressed::explain(file.path, error))?;
    content.check(file.planned)?;
    match kind.map_or_else(|| document(bytes, file.name()), |kind| Err(kind.problem())) {
        Ok(document) => sink(Record::Document(document)),
        Err(problem) => {
            wanted.bad_line(file.name().to_owned(), problem, sink, |problem| Error::input(file.path, problem))
        }
    }
}

/// Document of a file, without a byte-order mark.
fn document(mut bytes: Vec<u8>, name: &str) -> Result<Document, String> {
    check_size(bytes.len())?;
    if bytes.starts_with(UTF8_BOM) {
        bytes.drain(..UTF8_BOM.len());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("byte {at} is not UTF-8; convert the file, or leave it out")
    })?;
    Ok(Document { id: name.to_owned(), text, fields: Vec::new() })
}
