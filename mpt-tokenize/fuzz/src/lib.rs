//! Bodies of the fuzz targets: the input is read as a tokenizer or template, and used.

use std::path::Path;

use mpt_tokenize::{ChatTemplate, Message, Result, Tokenizer};

/// Words, spaces, multi-byte characters, special tokens.
const TEXTS: [&str; 4] = ["", "a word  and  12345", "é漢字🙂\u{301}", "<|endoftext|>x<|padding|>"];

/// Reads `data` as a `tokenizer.json`, and encodes and decodes.
pub fn tokenizer(data: &[u8]) {
    let _ = encoded(data);
}

fn encoded(data: &[u8]) -> Result<()> {
    let tokenizer = Tokenizer::from_bytes(data.to_vec(), Path::new("tokenizer.json"))?;
    for text in TEXTS {
        let ids = tokenizer.encode(text)?;
        tokenizer.decode(&ids)?;
    }
    tokenizer.decode(&[0, 1, u32::MAX]).map(drop)
}

/// Reads `data` as a chat template, and writes a conversation.
pub fn template(data: &[u8]) {
    if let Ok(source) = std::str::from_utf8(data) {
        let _ = rendered(source);
    }
}

fn rendered(source: &str) -> Result<()> {
    let template = ChatTemplate::from_source(source.to_owned(), Path::new("template"), "<s>", "</s>")?;
    let messages = [Message::new("system", "be short"), Message::new("user", "é <|im_end|>")];
    for messages in [&messages[..], &messages[1..], &[]] {
        template.render(messages, true)?;
    }
    template.render(&messages, false).map(drop)
}
