//! Plain text: one document per file, its id the file's name.

use std::io::Read;

use super::{Document, InputFile, MAX_DOCUMENT_BYTES, Sink, check_size, compressed};
use crate::error::{Error, Result};

pub(super) fn read(file: &InputFile<'_>, sink: Sink<'_>) -> Result<()> {
    let mut bytes = Vec::new();
    let mut limited = compressed::open(file)?.take(MAX_DOCUMENT_BYTES as u64 + 1);
    limited.read_to_end(&mut bytes).map_err(|error| compressed::explain(file.path, error))?;
    check_size(bytes.len()).map_err(|problem| Error::input(file.path, problem))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::input(file.path, format!("byte {at} is not UTF-8; convert the file, or leave it out"))
    })?;
    sink(Document { id: file.name.to_owned(), text, fields: Vec::new() })
}
