//! Encode a text, and decode it id by id as a model would give it.
//!
//! ```text
//! cargo run -p mpt-tokenize --example encode_and_stream [TOKENIZER.json]
//! ```
//!
//! Without a file a small tokenizer is trained on the text itself.

#![expect(clippy::print_stdout, reason = "an example speaks to people")]

use std::path::Path;

use mpt_tokenize::{Result, Tokenizer, TrainConfig, train};

const TEXT: &str = "The quick brown fox, naïve café, 你好 — and four    spaces.";

fn main() -> Result<()> {
    let tokenizer = match std::env::args_os().nth(1) {
        Some(path) => Tokenizer::from_file(Path::new(&path))?,
        None => {
            let config = TrainConfig { vocab_size: 300, min_frequency: 1 };
            Tokenizer::from_bytes(train([TEXT].into_iter(), &config)?, Path::new("trained here"))?
        }
    };

    // A tokenizer's special tokens are text like any other here: what a document holds cannot end it.
    let ids = tokenizer.encode(TEXT)?;
    println!("{} ids: {ids:?}", ids.len());

    // A character may span several ids. The stream gives whole characters only, and together they are the text.
    let mut stream = tokenizer.stream();
    let mut text = String::new();
    for &id in &ids {
        let piece = stream.push(id)?;
        println!("{id:>6} {piece:?}");
        text += &piece;
    }
    text += &stream.finish();
    assert_eq!(text, tokenizer.decode(&ids)?);
    assert_eq!(text, TEXT);
    Ok(())
}
