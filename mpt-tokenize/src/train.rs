//! Training a byte-level BPE in the GPT-NeoX style.
//!
//! NFC, then byte-level words, then merges by count. Ids: `<|endoftext|>` 0, `<|padding|>` 1, the 256 bytes, the merges, and
//! last the runs of 24 down to 2 spaces that make indented code short.
//! Source: Black et al. 2022, "GPT-NeoX-20B", section 3.1, and the published `tokenizer.json`.

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{Cause, Error, Result};

/// The token between documents, id 0.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// The token that fills batches, id 1.
pub const PADDING: &str = "<|padding|>";
/// The longest run of spaces that is a token.
const LONGEST_RUN: usize = 24;
const SPACE_RUNS: usize = LONGEST_RUN - 1;
const BYTES: usize = 256;
/// The two special tokens, the bytes, the space runs, and one merge.
const SMALLEST_VOCAB: usize = 2 + BYTES + SPACE_RUNS + 1;
/// Merges are counted in memory; no model of the family has a vocabulary near this.
const LARGEST_VOCAB: usize = 1 << 20;

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainConfig {
    /// Tokens in all. Fewer come out where the texts have too few pairs that occur often enough.
    pub vocab_size: usize,
    /// A pair must occur this often to become a token.
    pub min_frequency: u64,
}

/// Trains on `texts` and gives the bytes of a `tokenizer.json`. The same texts in the same order give the same bytes,
/// whatever the number of threads.
///
/// # Errors
/// [`Error::Config`] for an impossible vocabulary size, [`Error::Train`] when there is no text.
pub fn train<S: AsRef<str> + Send>(
    texts: impl Iterator<Item = S> + Send,
    config: &TrainConfig,
) -> Result<Vec<u8>> {
    if !(SMALLEST_VOCAB..=LARGEST_VOCAB).contains(&config.vocab_size) {
        let expected = format!("from {SMALLEST_VOCAB} to {LARGEST_VOCAB}");
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
        (2..=LONGEST_RUN).rev().map(|spaces| AddedToken::from(" ".repeat(spaces), false).normalized(true));
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
