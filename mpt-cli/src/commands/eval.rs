//! `mpt eval`: loss and perplexity of a model on a text.

use std::path::PathBuf;

use mpt_train::evaluate_ids;
use serde_json::json;

use crate::exit::{CliError, ExitStatus, expect_finite};
use crate::model_args::AdapterModelArgs;
use crate::settings::Context;

/// Measure a model's loss and perplexity on a text
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mpt eval --model run --text held-out.txt\n  mpt eval --model mpt-7b --text book.txt --max-seq-len 4096"
)]
pub(crate) struct Args {
    #[command(flatten)]
    model: AdapterModelArgs,
    /// UTF-8 text
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens in a window [default: the model's max_seq_len]
    #[arg(long, value_name = "L", value_parser = clap::value_parser!(u32).range(2..))]
    max_seq_len: Option<u32>,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let pipeline = args.model.pipeline(ctx)?;
    let tokenizer = pipeline.tokenizer()?;
    let text = std::fs::read_to_string(&args.text)
        .map_err(|error| CliError::read(ExitStatus::Data, &args.text, error))?;
    let ids = tokenizer.encode(&text)?;
    if ids.len() < 2 {
        return Err(CliError::data(format!(
            "{}: has {} tokens, expected 2 or more",
            args.text.display(),
            ids.len()
        )));
    }
    let model = pipeline.model();
    let window = args.max_seq_len.map_or(model.config().max_seq_len, |length| length as usize);
    if window < 2 {
        let message = format!(
            "{}: `max_seq_len` is {window}, and windows have 2 tokens or more",
            args.model.base.model.display()
        );
        return Err(CliError::data(message).help("name the tokens of a window with --max-seq-len"));
    }
    let report = evaluate_ids(model, &ids, window)?;
    expect_finite("the loss", report.loss)?;
    let (loss, perplexity, tokens) = (report.loss, report.perplexity(), report.tokens);
    ctx.out.text(format_args!(
        "loss {loss:.4} nats a token, perplexity {perplexity:.2}, {tokens} tokens in windows of {window}"
    ))?;
    ctx.out.json(&json!({ "loss": loss, "perplexity": perplexity, "tokens": tokens }))?;
    Ok(ExitStatus::Done)
}
