//! `--model`, `--dtype` and `--adapter`: flags of the model, and opening it.

use std::path::{Path, PathBuf};

use mpt_core::{CausalLm, Precision, WeightDtype, Weights};
use mpt_infer::{OpenOptions, Pipeline, open_model, open_weights};

use crate::dtype_args::weight_dtype;
use crate::exit::CliError;
use crate::settings::Context;

/// Flags of a model.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArgs {
    /// Model folder, GGUF file, or run folder of `mpt train`
    #[arg(long, value_name = "PATH")]
    pub(crate) model: PathBuf,
    /// Form of the matrices; quantized where the file holds a wider one, f32 leaves them as they are
    #[arg(long, value_name = "DTYPE", default_value = "f32", value_parser = weight_dtype())]
    pub(crate) dtype: WeightDtype,
}

/// Flags of a model with an optional adapter.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AdapterModelArgs {
    #[command(flatten)]
    pub(crate) base: ModelArgs,
    /// LoRA adapter folder, as peft writes it
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
}

/// Maps the weights at `path`, with a warning if the folder holds a second model.
pub(crate) fn open(path: &Path, ctx: &Context) -> Result<Weights, CliError> {
    let weights = open_weights(path)?;
    warn_of_ignored_index(&weights, ctx);
    Ok(weights)
}

fn warn_of_ignored_index(weights: &Weights, ctx: &Context) {
    if let (Some(index), Some(used)) = (weights.ignored_index(), weights.files().next()) {
        let (index, used) = (index.display(), used.display());
        ctx.out
            .log()
            .warn(format_args!("{used} is used, and {index} beside it, which names other files, is not"));
    }
}

impl ModelArgs {
    /// Maps the weights. No tensor is read yet.
    pub(crate) fn weights(&self, ctx: &Context) -> Result<Weights, CliError> {
        Ok(open(&self.model, ctx)?.with_dtype(self.dtype))
    }
}

impl AdapterModelArgs {
    /// Model with its tokenizer and stop ids.
    pub(crate) fn pipeline(&self, ctx: &Context) -> Result<Pipeline, CliError> {
        self.pipeline_with(None, ctx)
    }

    /// [`AdapterModelArgs::pipeline`] in `precision`; `None` for that of the weights' dtype.
    pub(crate) fn pipeline_with(
        &self,
        precision: Option<Precision>,
        ctx: &Context,
    ) -> Result<Pipeline, CliError> {
        let pipeline = Pipeline::open_with(&self.base.model, &OpenOptions { precision, ..self.options() })?;
        warn_of_ignored_index(pipeline.weights(), ctx);
        Ok(pipeline)
    }

    /// Model without a tokenizer.
    pub(crate) fn model(&self, ctx: &Context) -> Result<CausalLm, CliError> {
        let (model, weights) = open_model(&self.base.model, &self.options())?;
        warn_of_ignored_index(&weights, ctx);
        Ok(model)
    }

    fn options(&self) -> OpenOptions {
        let weight_dtype = self.base.dtype;
        OpenOptions { weight_dtype, precision: None, adapter: self.adapter.clone() }
    }
}
