//! Tokens around documents, as asked for or by default.

use mpt_tokenize::Tokenizer;

use super::{ImportOptions, conversion};
use crate::config::Format;
use crate::error::Result;

/// Token that ends documents by default.
const DEFAULT_EOS: &str = "<|endoftext|>";

/// Tokens around documents: id, and text in the tokenizer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BoundaryTokens {
    /// Token before each document.
    pub bos: Option<(u32, String)>,
    /// Token after each document.
    pub eos: Option<(u32, String)>,
}

impl BoundaryTokens {
    pub(super) fn is_none(&self) -> bool {
        self.bos.is_none() && self.eos.is_none()
    }
}

/// Boundary tokens of an import; in MDS without any asked for, [`DEFAULT_EOS`] after each document.
pub(super) fn boundaries(
    format: Format,
    tokenizer: &Tokenizer,
    options: &ImportOptions,
) -> Result<BoundaryTokens> {
    let all_known = |boundaries: &BoundaryTokens| {
        let known = |token: &Option<(u32, String)>| {
            token.as_ref().is_none_or(|(id, _)| (*id as usize) < tokenizer.num_ids())
        };
        known(&boundaries.bos) && known(&boundaries.eos)
    };
    match &options.boundaries {
        Some(boundaries) if all_known(boundaries) => Ok(boundaries.clone()),
        Some(_) => {
            Err(conversion("eos", format!("the tokenizer has {} ids; name one of them", tokenizer.num_ids())))
        }
        None if format == Format::Megatron => Ok(BoundaryTokens::default()),
        None => match tokenizer.token_to_id(DEFAULT_EOS) {
            Some(id) => Ok(BoundaryTokens { bos: None, eos: Some((id, DEFAULT_EOS.into())) }),
            None => Err(conversion(
                "eos",
                format!(
                    "MDS does not keep where documents begin, and the tokenizer has no {DEFAULT_EOS}; name the token that ends a document, or the one that begins it, or that there is none"
                ),
            )),
        },
    }
}
