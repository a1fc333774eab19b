//! Plain text: one document per file, its id the file's name.

use std::io::Read;

use super::{InputFile, MAX_DOCUMENT_BYTES, Record, Sink, Wanted, check_size};
use crate::compressed;
use crate::document::Document;
use crate::error::{Error, Result};

pub(super) fn read(wanted: &Wanted<'_>, file: &InputFile<'_>, sink: Sink<'_>) -> Result<()> {
    let mut bytes = Vec::new();
    let mut limited = compressed::open(file.path, file.progress)?.take(MAX_DOCUMENT_BYTES as u64 + 1);
    limited.read_to_end(&mut bytes).map_err(|error| compressed::explain(file.path, error))?;
    match document(bytes, file.name) {
        Ok(document) => sink(Record::Document(document)),
        Err(problem) => {
            wanted.bad_line(file.name.to_owned(), problem, sink, |problem| Error::input(file.path, problem))
        }
    }
}

fn document(bytes: Vec<u8>, name: &str) -> Result<Document, String> {
    check_size(bytes.len())?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("byte {at} is not UTF-8; convert the file, or leave it out")
    })?;
    Ok(Document { id: name.to_owned(), text, fields: Vec::new() })
}
