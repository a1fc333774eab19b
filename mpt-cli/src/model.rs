//! `--model PATH`: a Hugging Face folder, or the run folder of `mpt train`, whose latest checkpoint it stands for.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::DType;
use mpt_core::{CausalLm, Weights};
use mpt_tokenize::Tokenizer;

use crate::exit::CliError;
use crate::settings::Context;

/// The model to use.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArgs {
    /// Model folder, or the run folder of `mpt train`
    #[arg(long, value_name = "PATH")]
    pub(crate) model: PathBuf,
    /// Format of weights and computation
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    dtype: Dtype,
}

/// A format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dtype {
    F32,
    Bf16,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_k")]
    Q4K,
    Nf4,
}

impl ModelArgs {
    /// The weights, nothing read yet.
    pub(crate) fn weights(&self) -> Result<Weights, CliError> {
        if self.dtype != Dtype::F32 {
            return Err(
                CliError::usage("--dtype: only `f32` is supported by this build").help("leave `--dtype` out")
            );
        }
        open(&self.model)
    }

    /// The model, its tokenizer if it has one, and where it lies.
    pub(crate) fn load(&self, ctx: &Context) -> Result<Model, CliError> {
        let began = Instant::now();
        let weights = self.weights()?;
        let lm = CausalLm::new(weights.config(), weights.var_builder(DType::F32, &ctx.device()?)?)?;
        let dir = weights.dir().to_owned();
        Ok(Model { lm, tokenizer: tokenizer(&dir)?, dir, load_seconds: began.elapsed().as_secs_f64() })
    }
}

/// A model ready to run.
pub(crate) struct Model {
    /// The network.
    pub(crate) lm: CausalLm,
    /// Its tokenizer.
    pub(crate) tokenizer: Option<Tokenizer>,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// Seconds that loading took.
    pub(crate) load_seconds: f64,
}

impl Model {
    /// Its tokenizer, which the command cannot do without.
    pub(crate) fn need_tokenizer(&self) -> Result<&Tokenizer, CliError> {
        let missing = || {
            CliError::data(format!("{}: there is no tokenizer.json, which text needs", self.dir.display()))
                .help("put the model's tokenizer.json there, or give token ids instead of text")
        };
        self.tokenizer.as_ref().ok_or_else(missing)
    }
}

/// Opens a model or the latest checkpoint of a run.
pub(crate) fn open(path: &Path) -> Result<Weights, CliError> {
    Ok(Weights::open(&dir(path)?)?)
}

/// The folder of a model: the one named, or the latest checkpoint of a run.
pub(crate) fn dir(path: &Path) -> Result<PathBuf, CliError> {
    Ok(mpt_train::latest_checkpoint(path)?.unwrap_or_else(|| path.to_owned()))
}

/// The tokenizer in a model's folder, if there is one.
pub(crate) fn tokenizer(dir: &Path) -> Result<Option<Tokenizer>, CliError> {
    let path = dir.join("tokenizer.json");
    if path.exists() { Ok(Some(Tokenizer::from_file(&path)?)) } else { Ok(None) }
}
