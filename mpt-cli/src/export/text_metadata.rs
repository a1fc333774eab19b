//! Tokenizer metadata of an exported GGUF file: vocabulary, special tokens, chat template.

use std::fs;

use mpt_core::Weights;
use mpt_core::weights::GgufWriter;
use mpt_infer::{TokenizerProblem, stop_ids, tokenizer_of};
use mpt_tokenize::{GgufTokenizer, Tokenizer};
use serde_json::Value;

use crate::exit::CliError;
use crate::settings::Context;

/// Tokenizer metadata of a GGUF file.
pub(super) struct TextMetadata {
    parts: Option<GgufTokenizer>,
    /// Key and id of each special token.
    ids: Vec<(&'static str, u32)>,
    chat_template: Option<String>,
}

impl TextMetadata {
    /// Metadata from the model's files. Without a tokenizer that fits the model, it holds the stop ids alone.
    pub(super) fn of(weights: &Weights, ctx: &Context) -> Result<Self, CliError> {
        let chat_template = chat_template(weights);
        Ok(match gguf_tokenizer(weights)? {
            Ok((tokenizer, parts)) => {
                Self { parts: Some(parts), ids: Self::special_ids(&tokenizer), chat_template }
            }
            Err(problem) => {
                ctx.out.log().warn(format_args!(
                    "{problem}; the file is written without a tokenizer, and llama.cpp will not load it"
                ));
                let keys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"];
                let ids = keys.into_iter().zip(stop_ids(weights, None)?).collect();
                Self { parts: None, ids, chat_template }
            }
        })
    }

    /// Ids of the special tokens that the tokenizer has.
    fn special_ids(tokenizer: &Tokenizer) -> Vec<(&'static str, u32)> {
        let named = [
            ("tokenizer.ggml.bos_token_id", "<|endoftext|>"),
            ("tokenizer.ggml.eos_token_id", "<|endoftext|>"),
            ("tokenizer.ggml.unknown_token_id", "<|endoftext|>"),
            ("tokenizer.ggml.padding_token_id", "<|padding|>"),
            ("tokenizer.ggml.eot_token_id", "<|im_end|>"),
        ];
        named.into_iter().filter_map(|(key, token)| Some((key, tokenizer.token_to_id(token)?))).collect()
    }

    /// Writes the metadata to the header of a GGUF file.
    pub(super) fn write(&self, header: &mut GgufWriter) {
        if let Some(parts) = &self.parts {
            header.text("tokenizer.ggml.model", "gpt2");
            header.text("tokenizer.ggml.pre", "mpt");
            header.texts("tokenizer.ggml.tokens", &parts.tokens);
            header.ints("tokenizer.ggml.token_type", &parts.token_types);
            header.texts("tokenizer.ggml.merges", &parts.merges);
        }
        self.ids.iter().for_each(|&(key, id)| header.int(key, id));
        if self.parts.is_some() {
            header.bool("tokenizer.ggml.add_bos_token", false);
        }
        if let Some(template) = &self.chat_template {
            header.text("tokenizer.chat_template", template);
        }
    }
}

/// Tokenizer of the model in GGUF's form, or the reason why it has none. Only an I/O error fails.
fn gguf_tokenizer(weights: &Weights) -> Result<Result<(Tokenizer, GgufTokenizer), String>, CliError> {
    let tokenizer = match tokenizer_of(weights) {
        Ok(tokenizer) => tokenizer,
        Err(TokenizerProblem::Unusable(error)) if matches!(*error, mpt_tokenize::Error::Io { .. }) => {
            return Err(TokenizerProblem::Unusable(error).into());
        }
        Err(problem) => return Ok(Err(problem.to_string())),
    };
    let parts = tokenizer.to_gguf(weights.config().vocab_size);
    Ok(parts.map(|parts| (tokenizer, parts)).map_err(|error| error.to_string()))
}

/// Chat template of a model, if it has a single one.
fn chat_template(weights: &Weights) -> Option<String> {
    if let Some(metadata) = weights.metadata() {
        return metadata.text("tokenizer.chat_template").map(str::to_owned);
    }
    let dir = weights.path();
    let template = fs::read_to_string(dir.join("chat_template.jinja")).ok();
    template.or_else(|| {
        let config = fs::read_to_string(dir.join("tokenizer_config.json")).ok()?;
        let config: Value = serde_json::from_str(&config).ok()?;
        Some(config["chat_template"].as_str()?.to_owned())
    })
}
