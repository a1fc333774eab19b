//! `--model PATH`: a Hugging Face folder, a GGUF file, or the run folder of `mpt train`, whose latest checkpoint it
//! stands for.

use std::path::{Path, PathBuf};
use std::time::Instant;

use mpt_core::{Adapted, Adapter, CausalLm, Format, KvDtype, MetaArray, Metadata, Precision, Weights};
use mpt_tokenize::{GgufTokenizer, Tokenizer, token_type};

use crate::exit::CliError;

/// The model to use.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArgs {
    /// Model folder, GGUF file, or run folder of `mpt train`
    #[arg(long, value_name = "PATH")]
    pub(crate) model: PathBuf,
    /// Form of the matrices; quantized where the file holds a wider one, f32 leaves them as they are
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    pub(crate) dtype: Dtype,
}

/// A format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dtype {
    F32,
    Bf16,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q6_k")]
    Q6K,
    #[value(name = "q5_k")]
    Q5K,
    #[value(name = "q4_k")]
    Q4K,
    #[value(name = "q4_0")]
    Q4_0,
    Nf4,
}

/// A form of keys and values in a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CacheDtype {
    F32,
    Bf16,
    Int8,
}

impl From<CacheDtype> for KvDtype {
    fn from(dtype: CacheDtype) -> Self {
        match dtype {
            CacheDtype::F32 => Self::F32,
            CacheDtype::Bf16 => Self::Bf16,
            CacheDtype::Int8 => Self::Int8,
        }
    }
}

/// The model to use, with an adapter if there is one.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AdaptedArgs {
    #[command(flatten)]
    pub(crate) base: ModelArgs,
    /// LoRA adapter folder, as peft writes it
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
}

impl ModelArgs {
    /// The weights, mapped; nothing of them is read yet.
    pub(crate) fn weights(&self) -> Result<Weights, CliError> {
        Ok(open(&self.model)?.rounded_to(self.dtype.format()))
    }
}

impl Dtype {
    /// How a model in this form multiplies: bf16 computes in bf16, all others keep the factors of plain forms as they are.
    pub(crate) fn products(self) -> Precision {
        if matches!(self, Self::Bf16) { Precision::Bf16 } else { Precision::F32 }
    }

    /// The stored form.
    pub(crate) fn format(self) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::Bf16 => Format::BF16,
            Self::F16 => Format::F16,
            Self::Q8_0 => Format::Q8_0,
            Self::Q6K => Format::Q6K,
            Self::Q5K => Format::Q5K,
            Self::Q4K => Format::Q4K,
            Self::Q4_0 => Format::Q4_0,
            Self::Nf4 => Format::Nf4,
        }
    }
}

impl AdaptedArgs {
    /// The model, its tokenizer if it has one, and where it lies.
    pub(crate) fn load(&self) -> Result<Model, CliError> {
        self.load_with(self.base.dtype.products())
    }

    /// [`AdaptedArgs::load`], with the rounding of factors that `products` says.
    pub(crate) fn load_with(&self, products: Precision) -> Result<Model, CliError> {
        let began = Instant::now();
        let weights = self.base.weights()?.multiplied_as(products);
        let lm = match &self.adapter {
            Some(dir) => {
                let adapter = Adapter::open(dir, weights.config())?;
                CausalLm::new(weights.config(), &Adapted { base: &weights, adapter: &adapter })?
            }
            None => CausalLm::new(weights.config(), &weights)?,
        };
        let tokenizer = tokenizer(&weights)?;
        let stop_ids = stop_ids(&weights, tokenizer.as_ref())?;
        let path = weights.path().to_owned();
        Ok(Model { lm, weights, tokenizer, stop_ids, path, load_seconds: began.elapsed().as_secs_f64() })
    }
}

/// A model ready to run.
pub(crate) struct Model {
    /// The network.
    pub(crate) lm: CausalLm,
    /// Its weights, mapped.
    pub(crate) weights: Weights,
    /// Its tokenizer.
    pub(crate) tokenizer: Option<Tokenizer>,
    /// The ids that end a text.
    pub(crate) stop_ids: Vec<u32>,
    /// Its folder or file.
    path: PathBuf,
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
    Ok(Weights::open(&dir(path)?)?)
}

/// The folder of a model: the one named, or the latest checkpoint of a run.
pub(crate) fn dir(path: &Path) -> Result<PathBuf, CliError> {
    Ok(mpt_train::latest_checkpoint(path)?.unwrap_or_else(|| path.to_owned()))
}

/// The tokenizer in a model's folder or GGUF file, if there is one.
pub(crate) fn tokenizer(weights: &Weights) -> Result<Option<Tokenizer>, CliError> {
    if let Some(metadata) = weights.metadata() {
        return gguf_tokenizer(metadata, weights.path());
    }
    folder_tokenizer(weights.path())
}

/// The tokenizer in a folder, if there is one.
pub(crate) fn folder_tokenizer(dir: &Path) -> Result<Option<Tokenizer>, CliError> {
    let path = dir.join("tokenizer.json");
    if path.exists() { Ok(Some(Tokenizer::from_file(&path)?)) } else { Ok(None) }
}

fn gguf_tokenizer(metadata: &Metadata, path: &Path) -> Result<Option<Tokenizer>, CliError> {
    let Some(kind) = metadata.text("tokenizer.ggml.model") else { return Ok(None) };
    let pre = metadata.text("tokenizer.ggml.pre").unwrap_or("default");
    if kind != "gpt2" || !["mpt", "gpt-2", "default"].contains(&pre) {
        let found = format!("{}: the tokenizer is `{kind}` with the splitting of `{pre}`", path.display());
        return Err(CliError::data(found).help("MPT's is `gpt2` with that of `mpt`; convert the model again"));
    }
    let texts = |key: &str| {
        let texts = metadata.array(key).and_then(MetaArray::texts).map(Iterator::collect::<Vec<_>>);
        texts.ok_or_else(|| CliError::data(format!("{}: no list of texts `{key}`", path.display())))
    };
    let types = metadata.array("tokenizer.ggml.token_type").and_then(MetaArray::ints).map(Iterator::collect);
    let tokens = texts("tokenizer.ggml.tokens")?;
    let token_types = types.unwrap_or_else(|| vec![token_type::NORMAL; tokens.len()]);
    let parts = GgufTokenizer { tokens, token_types, merges: texts("tokenizer.ggml.merges")? };
    Ok(Some(Tokenizer::from_gguf(&parts, path)?))
}

/// The ids that end a text, from the model's files.
fn stop_ids(weights: &Weights, tokenizer: Option<&Tokenizer>) -> Result<Vec<u32>, CliError> {
    let Some(metadata) = weights.metadata() else {
        return Ok(mpt_infer::stop_ids(weights.path(), tokenizer)?);
    };
    let keys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"];
    let ids: Vec<u32> = keys.iter().filter_map(|key| u32::try_from(metadata.int(key)?).ok()).collect();
    if ids.is_empty() { Ok(tokenizer.and_then(Tokenizer::eos_id).into_iter().collect()) } else { Ok(ids) }
}
