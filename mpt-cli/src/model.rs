//! `--model PATH`, `--dtype`, `--adapter`: the flags that say which model, and how it is opened.

use std::path::{Path, PathBuf};

use mpt_core::{CausalLm, Precision, WeightDtype, Weights};
use mpt_infer::{OpenOptions, Pipeline, open_model, open_weights};

use crate::dtype_args::weight_dtype;
use crate::exit::CliError;
use crate::settings::Context;

/// The model to use.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArgs {
    /// Model folder, GGUF file, or run folder of `mpt train`
    #[arg(long, value_name = "PATH")]
    pub(crate) model: PathBuf,
    /// Form of the matrices; quantized where the file holds a wider one, f32 leaves them as they are
    #[arg(long, value_name = "DTYPE", default_value = "f32", value_parser = weight_dtype())]
    pub(crate) dtype: WeightDtype,
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

/// The weights at `path`, mapped, with a warning where the folder holds a second model.
pub(crate) fn open(path: &Path, ctx: &Context) -> Result<Weights, CliError> {
    let weights = open_weights(path)?;
    say_passed_over(&weights, ctx);
    Ok(weights)
}

fn say_passed_over(weights: &Weights, ctx: &Context) {
    if let (Some(index), Some(used)) = (weights.passed_over(), weights.files().next()) {
        let (index, used) = (index.display(), used.display());
        ctx.out
            .log()
            .warn(format_args!("{used} is used, and {index} beside it, which names other files, is not"));
    }
}

impl ModelArgs {
    /// The weights, mapped; nothing of them is read yet.
    pub(crate) fn weights(&self, ctx: &Context) -> Result<Weights, CliError> {
        Ok(open(&self.model, ctx)?.rounded_to(self.dtype))
    }
}

impl AdaptedArgs {
    /// The model with all that text needs.
    pub(crate) fn pipeline(&self, ctx: &Context) -> Result<Pipeline, CliError> {
        self.pipeline_with(None, ctx)
    }

    /// [`AdaptedArgs::pipeline`], in this precision where one is named, whatever the dtype of the weights.
    pub(crate) fn pipeline_with(
        &self,
        precision: Option<Precision>,
        ctx: &Context,
    ) -> Result<Pipeline, CliError> {
        let pipeline = Pipeline::open_with(&self.base.model, &OpenOptions { precision, ..self.options() })?;
        say_passed_over(pipeline.weights(), ctx);
        Ok(pipeline)
    }

    /// The model alone, for what needs no text.
    pub(crate) fn model(&self, ctx: &Context) -> Result<CausalLm, CliError> {
        let (model, weights) = open_model(&self.base.model, &self.options())?;
        say_passed_over(&weights, ctx);
        Ok(model)
    }

    fn options(&self) -> OpenOptions {
        let weight_dtype = self.base.dtype;
        OpenOptions { weight_dtype, precision: None, adapter: self.adapter.clone() }
    }
}
