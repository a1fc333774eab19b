//! `--model PATH`: a Hugging Face folder, or the run folder of `mpt train`, whose latest checkpoint it stands for.

use std::path::{Path, PathBuf};
use std::time::Instant;

use mpt_core::{Adapted, Adapter, CausalLm, Format, Weights};
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

/// The model to use, with an adapter if there is one.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AdaptedArgs {
    #[command(flatten)]
    pub(crate) base: ModelArgs,
    /// LoRA adapter folder, as peft writes it
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
}

impl ModelArgs {
    /// The weights, mapped; nothing of them is read yet.
    pub(crate) fn weights(&self) -> Result<Weights, CliError> {
        let format = self.dtype.format()?;
        Ok(open(&self.model)?.rounded_to(format)?)
    }
}

impl Dtype {
    /// The stored form, where there is one.
    pub(crate) fn format(self) -> Result<Format, CliError> {
        match self {
            Self::F32 => Ok(Format::F32),
            Self::Bf16 => Ok(Format::BF16),
            Self::F16 => Ok(Format::F16),
            Self::Q8_0 => Ok(Format::Q8_0),
            Self::Q4K => Ok(Format::Q4K),
            Self::Nf4 => Err(CliError::usage("--dtype: `nf4` is not built").help("use `bf16` or `f32`")),
        }
    }
}

impl AdaptedArgs {
    /// The model, its tokenizer if it has one, and where it lies.
    pub(crate) fn load(&self, _ctx: &Context) -> Result<Model, CliError> {
        let began = Instant::now();
        let weights = self.base.weights()?;
        let lm = match &self.adapter {
            Some(dir) => {
                let adapter = Adapter::open(dir, weights.config())?;
                CausalLm::new(weights.config(), &Adapted { base: &weights, adapter: &adapter })?
            }
            None => CausalLm::new(weights.config(), &weights)?,
        };
        let tokenizer = tokenizer(&weights)?;
        let path = weights.path().to_owned();
        Ok(Model { lm, tokenizer, path, load_seconds: began.elapsed().as_secs_f64() })
    }
}

/// A model ready to run.
pub(crate) struct Model {
    /// The network.
    pub(crate) lm: CausalLm,
    /// Its tokenizer.
    pub(crate) tokenizer: Option<Tokenizer>,
    /// Its folder or file.
    pub(crate) path: PathBuf,
    /// Seconds that loading took.
    pub(crate) load_seconds: f64,
}

impl Model {
    /// Its tokenizer, which the command cannot do without.
    pub(crate) fn need_tokenizer(&self) -> Result<&Tokenizer, CliError> {
        let missing = || {
            CliError::data(format!("{}: there is no tokenizer.json, which text needs", self.path.display()))
                .help("put the model's tokenizer.json there, or give token ids instead of text")
        };
        self.tokenizer.as_ref().ok_or_else(missing)
    }
}

/// Opens a model or the latest checkpoint of a run.
pub(crate) fn open(path: &Path) -> Result<Weights, CliError> {
    let checkpoint = mpt_train::latest_checkpoint(path)?;
    Ok(Weights::open(checkpoint.as_deref().unwrap_or(path))?)
}

/// The tokenizer in a model's folder, if there is one.
pub(crate) fn tokenizer(weights: &Weights) -> Result<Option<Tokenizer>, CliError> {
    let path = weights.path().join("tokenizer.json");
    if path.exists() { Ok(Some(Tokenizer::from_file(&path)?)) } else { Ok(None) }
}
