//! Checks that configuration and weights describe one model: names, and a tied head.

use std::path::{Path, PathBuf};

use super::folder::{SINGLE_FILES, index_name};
use super::{Weights, index, tied};
use crate::config::MptConfig;
use crate::error::{Error, Result, damaged};
use crate::params::{Module, ParamId};
use crate::quoted::quoted;

impl Weights {
    /// Checks that every parameter of the configuration has a tensor, and that no other tensor would change the model.
    pub(super) fn check_names(&self) -> Result<()> {
        let mut names = self.config().parameters().map(|(id, _)| id.to_string());
        if let Some(name) = names.find(|name| !self.has(name)) {
            return Err(self.missing(name));
        }
        let expected = self.config().parameter_shapes(); // no more than there are tensors
        let is_known = |name: &str| expected.contains_key(name) || is_ignored(name, self.config());
        match self.names().find(|name| !is_known(name)) {
            Some(name) => Err(Error::UnexpectedTensor {
                path: self.path().to_owned(),
                name: name.to_owned(),
                instead: "set the key that it belongs to (such as `no_bias`, `qk_ln`, `n_layers`)",
            }),
            None => Ok(()),
        }
    }

    /// Error for a missing tensor, by its likely cause.
    fn missing(&self, name: String) -> Error {
        if let Some(file) = self.index().and_then(|index| index::file_of(&index, &name)) {
            let found = format!("no tensor `{}`, which the index says it holds", quoted(&name));
            let expected = "the files of one download; fetch the model again";
            return Error::NotFetched { path: self.path().join(file), found, expected };
        }
        if let (Some(file), Some(_)) = (self.files().next(), self.ignored_index()) {
            let found = format!("no tensor `{}`", quoted(&name));
            let expected = "all tensors, since one file is used before an index of others beside it; remove which of the \
                            two is not the model's";
            return damaged(file, found, expected);
        }
        if name != head_name() {
            return Error::MissingTensor { path: self.path().to_owned(), name };
        }
        let expected = "the head of an untied model; set `tie_word_embeddings` to true in config.json if the model \
                        shares its embedding";
        damaged(self.path(), "no tensor `lm_head.weight`, and `tie_word_embeddings` is false", expected)
    }

    /// Checks that a tied head that the files hold equals the embedding.
    pub(super) fn check_tied_head(&self) -> Result<()> {
        let head = head_name();
        if !self.config().tie_word_embeddings || !self.has(&head) {
            return Ok(());
        }
        let embedding = self.stored_tensor(&ParamId::weight(Module::Wte).to_string())?;
        tied::check_head(self.path(), &self.stored_tensor(&head)?, &embedding)
    }

    /// Index that names the weights files; `None` for a single file.
    fn index(&self) -> Option<PathBuf> {
        let first = self.files().next()?;
        let of_kind = |single: &&'static str| {
            Path::new(single).extension() == first.extension() && !first.ends_with(single)
        };
        SINGLE_FILES.into_iter().find(of_kind).map(|single| self.path().join(index_name(single)))
    }

    /// Index beside a single weights file, which takes precedence; `None` when there is none.
    pub fn ignored_index(&self) -> Option<PathBuf> {
        let first = self.files().next()?;
        let single = SINGLE_FILES.iter().find(|single| first.ends_with(single))?;
        Some(self.path().join(index_name(single))).filter(|index| index.is_file())
    }
}

/// Whether a tensor of a checkpoint changes nothing: buffers of other programs, and a tied head.
fn is_ignored(name: &str, config: &MptConfig) -> bool {
    name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == head_name())
}

/// Checkpoint name of the head.
fn head_name() -> String {
    ParamId::weight(Module::LmHead).to_string()
}
