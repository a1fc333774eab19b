//! `--model PATH`, `--dtype`, `--adapter`: the flags that say which model, and how it is opened.

use std::path::PathBuf;

use mpt_core::{CausalLm, Format, KvDtype, Precision, Weights};
use mpt_infer::{OpenOptions, Pipeline, open_model, open_weights, precision_of};

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
        Ok(open_weights(&self.model)?.rounded_to(self.dtype.format()))
    }
}

impl Dtype {
    /// How a model in this form multiplies.
    pub(crate) fn precision(self) -> Precision {
        precision_of(self.format())
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
    /// The model with all that text needs.
    pub(crate) fn pipeline(&self) -> Result<Pipeline, CliError> {
        self.pipeline_with(None)
    }

    /// [`AdaptedArgs::pipeline`], in this precision where one is named, whatever the dtype of the weights.
    pub(crate) fn pipeline_with(&self, precision: Option<Precision>) -> Result<Pipeline, CliError> {
        Ok(Pipeline::open_with(&self.base.model, &OpenOptions { precision, ..self.options() })?)
    }

    /// The model alone, for what needs no text.
    pub(crate) fn model(&self) -> Result<CausalLm, CliError> {
        let (model, _) = open_model(&self.base.model, &self.options())?;
        Ok(model)
    }

    fn options(&self) -> OpenOptions {
        let weight_dtype = self.base.dtype.format();
        OpenOptions { weight_dtype, precision: None, adapter: self.adapter.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mpt_infer::latest_checkpoint;

    #[test]
    fn generating_and_training_mean_the_same_checkpoint() {
        let run = tempfile::tempdir().expect("a temporary folder");
        let same = || {
            let trained = mpt_train::latest_checkpoint(run.path()).expect("listed");
            assert_eq!(latest_checkpoint(run.path()).expect("listed"), trained);
            trained
        };
        assert_eq!(same(), None);
        for name in ["", "step-x", ".step-00000099.partial", "step-"] {
            fs::create_dir_all(run.path().join("checkpoints").join(name)).expect("writable");
            assert_eq!(same(), None, "{name}");
        }
        for name in ["step-00000099", "step-00000100", "step-9", "step-+100", "step-00000100.old", "step-100"]
        {
            fs::create_dir(run.path().join("checkpoints").join(name)).expect("writable");
            assert!(same().is_some(), "{name}");
        }
    }
}
