//! Text to token ids and back, exactly, for the MPT family.
//!
//! [`Tokenizer`] is a loaded `tokenizer.json`; [`StreamDecoder`] turns ids into text as they come; [`train`] makes a new
//! byte-level BPE in the GPT-NeoX style, the one all MPT models were trained with. [`ChatTemplate`] turns a conversation
//! into the text that a chat model continues.
//!
//! ```
//! use std::path::Path;
//! use mpt_tokenize::{Tokenizer, TrainConfig, train};
//!
//! # fn main() -> mpt_tokenize::Result<()> {
//! let text = "The quick brown fox, naïve café, 你好.";
//! // A published one: Tokenizer::from_file(Path::new("tokenizer.json"))?
//! let config = TrainConfig { vocab_size: 300, min_frequency: 1 };
//! let json: Vec<u8> = train([text].into_iter(), &config)?; // what a tokenizer.json holds
//! let tokenizer = Tokenizer::from_bytes(json, Path::new("trained here"))?; // the name is for errors
//!
//! let ids = tokenizer.encode(text)?;
//! assert_eq!(tokenizer.decode(&ids)?, text);
//!
//! // A character may span several ids: a stream gives whole characters only, and together they are the text.
//! let mut stream = tokenizer.stream();
//! let mut streamed = String::new();
//! for id in ids {
//!     streamed += &stream.push(id)?;
//! }
//! streamed += &stream.finish();
//! assert_eq!(streamed, text);
//! # Ok(())
//! # }
//! ```
//!
//! What a document holds is text: the name of a special token in it is encoded like any other. [`Tokenizer::encode_batch`] uses
//! all threads and gives the same ids.
//!
//! # Conversations
//!
//! ```
//! use mpt_tokenize::{ChatTemplate, Message};
//!
//! # fn main() -> mpt_tokenize::Result<()> {
//! let template = ChatTemplate::builtin("chatml")?; // or ChatTemplate::from_folder, a checkpoint's own
//! let messages = [Message::new("user", "Why is the sky blue?")];
//! let text = template.render(&messages, true)?; // true: up to where the answer begins
//! assert!(text.ends_with("<|im_start|>assistant\n"), "{text}");
//! # Ok(())
//! # }
//! ```
//!
//! A checkpoint's own template is a program by somebody else; it runs only when it is found harmless, within bounds of work,
//! memory and output.

mod added_vocabulary;
mod bpe;
mod byte_level;
mod char_class;
mod chat;
mod error;
mod error_kind;
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
pub use error::{Cause, Error, Result};
pub use error_kind::ErrorKind;
pub use gguf::{GgufTokenizer, token_type};
pub use stream::StreamDecoder;
pub use tokenizer::{TokenId, Tokenizer};
pub use train::{END_OF_TEXT, PADDING, TrainConfig, train};
