//! Input of `mpt verify`: a text, rows of ids, or the built-in rows.

use std::path::{Path, PathBuf};

use mpt_infer::Pipeline;
use mpt_infer::verify::{builtin_rows, windows};

use crate::exit::{CliError, ExitStatus};
use crate::json_file::read_json;

/// Input of the models.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(super) struct InputArgs {
    /// UTF-8 text, in windows of max_seq_len tokens [default: built-in rows of ids, drawn by --seed]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Lists of token ids, as JSON
    #[arg(long, value_name = "FILE")]
    ids_file: Option<PathBuf>,
}

/// Rows of ids. If they are text, perplexity is meaningful.
pub(super) struct Input {
    /// Token ids.
    pub(super) ids: Vec<Vec<u32>>,
    /// Whether they are text.
    pub(super) is_text: bool,
}

impl InputArgs {
    /// Whether a file is given.
    pub(super) fn is_given(&self) -> bool {
        self.text.is_some() || self.ids_file.is_some()
    }
}

impl Input {
    /// Number of tokens.
    pub(super) fn num_tokens(&self) -> usize {
        self.ids.iter().map(Vec::len).sum()
    }
}

impl InputArgs {
    /// Reads the input, or makes the built-in rows by `seed`.
    pub(super) fn read(&self, pipeline: &Pipeline, seed: u64) -> Result<Input, CliError> {
        let config = pipeline.model().config();
        if let Some(path) = &self.text {
            let text = std::fs::read_to_string(path)
                .map_err(|error| CliError::read(ExitStatus::Data, path, error))?;
            let ids = windows(&pipeline.tokenizer()?.encode(&text)?, config.max_seq_len.max(2));
            return expect_non_empty(path, Input { ids, is_text: true }, "a text of two or more tokens");
        }
        let Some(path) = &self.ids_file else {
            return Ok(Input { ids: builtin_rows(config, seed), is_text: false });
        };
        let ids: Vec<Vec<u32>> = read_json(path)?;
        let outside = |id: &&u32| **id as usize >= config.vocab_size;
        if let Some(id) = ids.iter().flatten().find(outside) {
            let message =
                format!("{}: holds id {id}, expected ids below {}", path.display(), config.vocab_size);
            return Err(CliError::data(message));
        }
        expect_non_empty(path, Input { ids, is_text: true }, "one or more lists of ids, none empty")
    }
}

fn expect_non_empty(path: &Path, input: Input, expected: &str) -> Result<Input, CliError> {
    if input.ids.is_empty() || input.ids.iter().any(Vec::is_empty) {
        return Err(CliError::data(format!("{}: expected {expected}", path.display())));
    }
    Ok(input)
}
