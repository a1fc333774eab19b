//! `mpt grad`: gradients of the mean loss for all parameters.

use std::path::PathBuf;

use candle_core::Tensor;
use mpt_core::{CausalLm, Gradients, Params, Recompute, TrainBatch, write_safetensors};

use crate::commands::score::{LabeledRowsArgs, expect_finite_values};
use crate::exit::{CliError, ExitStatus, expect_finite};
use crate::export;
use crate::model_args::ModelArgs;
use crate::output::path_text;
use crate::settings::Context;

/// Write the gradient of the mean next-token loss for every parameter
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  mpt grad --model mpt-125m --ids-file ids.json --out grads.safetensors")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    rows: LabeledRowsArgs,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    export::refuse_input(&args.out, [args.model.model.as_path()], &args.rows.files())?;
    let output = export::Replacement::begin(&args.out)?;
    let weights = args.model.weights(ctx)?;
    let params = Params::load(&weights, &ctx.device)?;
    let model = CausalLm::new(weights.config(), &params)?;
    let rows = args.rows.read(None)?;
    let scored = rows.num_scored();
    if scored == 0 {
        return Err(CliError::usage("there is nothing to differentiate: no position has a label"));
    }
    let mut gradients = Gradients::default();
    let mut bar = rows.bar("grad", ctx);
    let mut loss = 0.0;
    for row in rows.iter() {
        let (tokens, mask, labels) = (&[row.ids], &row.mask, row.labels);
        let batch = TrainBatch { tokens, mask, labels, dropout: None };
        loss += model.loss_and_gradients(&batch, Recompute::All, &mut gradients)?;
        bar.advance(1);
    }
    bar.finish();
    let mean = |(name, sum): (&str, &Tensor)| Ok((name.to_owned(), (sum / scored as f64)?));
    let means = gradients.iter().map(mean).collect::<candle_core::Result<Vec<_>>>()?;
    let loss = loss / scored as f64;
    expect_finite("the loss", loss)?;
    for (name, mean) in &means {
        expect_finite_values(&format!("the gradient of `{name}`"), mean)?;
    }
    let tensors = means.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(output.path(), tensors)?;
    output.commit()?;
    ctx.out.text(format_args!("loss {loss:.6} over {scored} positions, {} gradients", means.len()))?;
    ctx.out.json(&serde_json::json!({ "out": path_text(&args.out), "loss": loss, "positions": scored }))?;
    Ok(ExitStatus::Done)
}
