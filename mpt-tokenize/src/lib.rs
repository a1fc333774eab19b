//! Text to token ids and back, exactly, for the MPT family.
//!
//! [`Tokenizer`] is a loaded `tokenizer.json`; [`StreamDecoder`] turns ids into text as they come; [`train`] makes a new
//! byte-level BPE in the GPT-NeoX style, the one all MPT models were trained with. [`ChatTemplate`] turns a conversation
//! into the text that a chat model continues.

mod added_vocabulary;
mod bpe;
mod byte_level;
mod char_class;
mod chat;
mod error;
mod gguf;
mod lfs;
mod normalizer;
mod pre_tokenizer;
mod stream;
mod tokenizer;
mod tokenizer_json;
mod train;
mod word_cache;

pub use chat::{ChatTemplate, Message};
pub use error::{Error, Result};
pub use gguf::{GgufTokenizer, token_type};
pub use stream::StreamDecoder;
pub use tokenizer::{TokenId, Tokenizer};
pub use train::{END_OF_TEXT, PADDING, TrainConfig, train};
