//! Training of a byte-level BPE tokenizer in GPT-NeoX's style.
//!
//! Normalizer NFC, byte-level pre-tokenizer. Ids: `<|endoftext|>` 0, `<|padding|>` 1, the 256 bytes, the merges, and runs of
//! 24 down to 2 spaces, which shorten indented code.
//!
//! Source: Black et al. 2022, "GPT-NeoX-20B", section 3.1, and the published `tokenizer.json`.

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{Cause, Error, Result};

/// End-of-document token, id 0.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Padding token, id 1.
pub const PADDING: &str = "<|padding|>";
/// Longest run of spaces that is a token.
const MAX_SPACE_RUN: usize = 24;
const SPACE_RUNS: usize = MAX_SPACE_RUN - 1;
const BYTES: usize = 256;
/// Smallest vocabulary: two special tokens, the bytes, the space runs and one merge.
const MIN_VOCAB_SIZE: usize = 2 + BYTES + SPACE_RUNS + 1;
/// Largest vocabulary: pairs are counted in memory.
const MAX_VOCAB_SIZE: usize = 1 << 20;

/// Options of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainConfig {
    /// Number of tokens; fewer when the texts lack frequent pairs.
    pub vocab_size: usize,
    /// Occurrences that a pair needs to become a token.
    pub min_frequency: u64,
}

/// Trains a tokenizer on `texts`; returns the bytes of its `tokenizer.json`. Equal texts in equal order give equal bytes for
/// any number of threads.
///
/// # Errors
/// [`Error::Config`] for a `vocab_size` out of range, [`Error::Train`] when there is no text.
pub fn train<S: AsRef<str> + Send>(
    texts: impl Iterator<Item = S> + Send,
    config: &TrainConfig,
) -> Result<Vec<u8>> {
    if !(MIN_VOCAB_SIZE..=MAX_VOCAB_SIZE).contains(&config.vocab_size) {
        let expected = format!("from {MIN_VOCAB_SIZE} to {MAX_VOCAB_SIZE}");
        return Err(Error::Config { field: "vocab_size", actual: config.vocab_size.to_string(), expected });
    }
    let mut tokenizer = untrained()?;
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(config.vocab_size - SPACE_RUNS)
        .min_frequency(config.min_frequency)
        .show_progress(false)
        .special_tokens(vec![special(END_OF_TEXT), special(PADDING)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build()
        .into();
    tokenizer.train(&mut trainer, texts).map_err(failed)?;
    let runs =
        (2..=MAX_SPACE_RUN).rev().map(|spaces| AddedToken::from(" ".repeat(spaces), false).normalized(true));
    tokenizer.add_tokens(runs).map_err(failed)?;
    Ok(tokenizer.to_string(true).map_err(failed)?.into_bytes())
}

fn untrained() -> Result<Tokenizer> {
    let byte_level = ByteLevel::new(false, true, true);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_normalizer(Some(NFC)).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(byte_level));
    tokenizer.with_post_processor(Some(byte_level));
    tokenizer.with_decoder(Some(byte_level));
    Ok(tokenizer)
}

fn special(token: &str) -> AddedToken {
    AddedToken::from(token, true)
}

fn failed(error: impl Into<Cause>) -> Error {
    Error::Train(error.into())
}
