//! Defaults of absent keys: those of the program that wrote the file.

use std::path::Path;

use super::{RawMptConfig, syntax_error};
use crate::bounded_file::read_config;
use crate::error::Result;

/// Program whose defaults apply to the absent keys of a `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigDefaults {
    /// llm-foundry's remote code: `architectures` has `MPTForCausalLM`, or there is an `auto_map`.
    LlmFoundry,
    /// transformers, whose class is `MptForCausalLM`.
    Transformers,
}

impl ConfigDefaults {
    /// Name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::LlmFoundry => "llm-foundry",
            Self::Transformers => "transformers",
        }
    }

    /// Program whose defaults apply in a `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::ConfigSyntax`](crate::Error::ConfigSyntax).
    pub fn of_file(path: &Path) -> Result<Self> {
        let text = read_config(path)?;
        let raw: RawMptConfig =
            serde_json::from_str(&text).map_err(|source| syntax_error(&text, path, source))?;
        Ok(if raw.has_llm_foundry_defaults() { Self::LlmFoundry } else { Self::Transformers })
    }
}
