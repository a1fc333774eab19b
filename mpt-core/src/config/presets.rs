//! Published model sizes, by name.

use std::path::Path;

use super::MptConfig;
use super::read::RawMptConfig;
use crate::error::{Error, Result};

/// Sizes of a preset.
#[derive(Clone, Copy, Debug)]
struct Shape {
    d_model: usize,
    n_layers: usize,
    n_heads: usize,
    max_seq_len: usize,
}

/// Names of the presets, smallest model first.
pub const PRESETS: [&str; 9] =
    ["mpt-125m", "mpt-350m", "mpt-760m", "mpt-1b", "mpt-3b", "mpt-7b", "mpt-13b", "mpt-30b", "mpt-70b"];

/// Embedding rows of the published models: 50,277 ids of the GPT-NeoX-20B tokenizer, padded.
const VOCAB_SIZE: usize = 50432;

/// Sizes of a preset; `None` for an unknown name.
///
/// Source: the published configurations of MPT-7B and MPT-30B, llm-foundry's pretraining files for the others.
fn shape(name: &str) -> Option<Shape> {
    let (d_model, n_layers, n_heads, max_seq_len) = match name {
        "mpt-125m" => (768, 12, 12, 2048),
        "mpt-350m" => (1024, 24, 16, 2048),
        "mpt-760m" => (1536, 24, 12, 2048),
        "mpt-1b" => (2048, 24, 16, 2048),
        "mpt-3b" => (2560, 32, 20, 2048),
        "mpt-7b" => (4096, 32, 32, 2048),
        "mpt-13b" => (5120, 40, 40, 2048),
        "mpt-30b" => (7168, 48, 64, 8192),
        "mpt-70b" => (8192, 80, 64, 2048),
        _ => return None,
    };
    Some(Shape { d_model, n_layers, n_heads, max_seq_len })
}

impl MptConfig {
    /// MPT's standard architecture at a given size: ALiBi, no biases, tied embedding, GELU, `expansion_ratio` 4.
    ///
    /// # Errors
    /// [`Error::Config`] naming an invalid size.
    pub fn mpt(
        d_model: usize,
        n_layers: usize,
        n_heads: usize,
        vocab_size: usize,
        max_seq_len: usize,
    ) -> Result<Self> {
        RawMptConfig::sizes(d_model, n_layers, n_heads, vocab_size, max_seq_len).check(Path::new("model"))
    }

    /// Preset by name, one of [`PRESETS`]; `vocab_size` is 50,432.
    ///
    /// # Errors
    /// [`Error::Config`] listing the names.
    pub fn preset(name: &str) -> Result<Self> {
        let Some(Shape { d_model, n_layers, n_heads, max_seq_len }) = shape(name) else {
            return Err(Error::Config {
                path: "model".into(),
                field: "preset",
                actual: name.to_owned(),
                expected: format!("one of {}", PRESETS.join(", ")),
            });
        };
        Self::mpt(d_model, n_layers, n_heads, VOCAB_SIZE, max_seq_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_their_published_parameter_counts() {
        for (name, parameters) in
            [("mpt-125m", 123_685_632), ("mpt-7b", 6_649_286_656), ("mpt-30b", 29_957_200_896)]
        {
            assert_eq!(MptConfig::preset(name).unwrap().num_parameters(), parameters, "{name}");
        }
        assert_eq!(MptConfig::preset("mpt-30b").unwrap().head_dim, 112);
    }

    #[test]
    fn every_preset_is_possible_and_in_order_of_size() {
        let sizes: Vec<u64> =
            PRESETS.iter().map(|name| MptConfig::preset(name).unwrap().num_parameters()).collect();
        assert!(sizes.is_sorted(), "{sizes:?}");
        let message = MptConfig::preset("mpt-2b").unwrap_err().to_string();
        assert!(message.contains("mpt-760m"), "{message}");
    }
}
