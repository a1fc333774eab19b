//! `mpt score`: logits and losses of given ids.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use mpt_core::{CausalLm, SafetensorsWriter};

use crate::exit::{CliError, ExitStatus, expect_finite};
use crate::export;
use crate::labeled_rows::{LabeledRows, LabeledRowsArgs, num_scored};
use crate::model_args::AdapterModelArgs;
use crate::output::path_text;
use crate::settings::Context;

/// Write the logits and losses of token ids
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt score --model mpt-7b --ids-file ids.json --out scores.safetensors
  mpt score --model mpt-7b --ids-file ids.json --mask-file mask.json --out scores.safetensors")]
pub(crate) struct Args {
    #[command(flatten)]
    model: AdapterModelArgs,
    #[command(flatten)]
    rows: LabeledRowsArgs,
    /// 1 for tokens and 0 for padding, shaped like the ids
    #[arg(long, value_name = "FILE", conflicts_with = "sequence_id_file")]
    mask_file: Option<PathBuf>,
    /// Tokens a row may have [default: unbounded with ALiBi, else the model's max_seq_len]
    #[arg(long, value_name = "L")]
    max_seq_len: Option<usize>,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let inputs = [args.rows.files(), args.mask_file.iter().map(PathBuf::as_path).collect()].concat();
    let models = std::iter::once(args.model.base.model.as_path()).chain(args.model.adapter.as_deref());
    export::refuse_input(&args.out, models, &inputs)?;
    let output = export::Replacement::begin(&args.out)?;
    let model = args.model.model(ctx)?;
    let rows = args.rows.read(args.mask_file.as_deref())?;
    check_sequence_ids(&model, args.rows.has_sequence_ids())?;
    let (batch, seq) = rows.dims();
    if args.max_seq_len.is_some_and(|limit| seq > limit) {
        return Err(CliError::usage(format!("--max-seq-len: the rows have {seq} tokens")));
    }
    let losses = write_scores(&model, &rows, output.path(), ctx)?;
    output.commit()?;
    for (row, loss) in losses.iter().enumerate() {
        ctx.out.text(format_args!("row {row}: loss {loss:.6}"))?;
    }
    ctx.out.json(&serde_json::json!({ "out": path_text(&args.out), "batch": batch, "seq": seq }))?;
    Ok(ExitStatus::Done)
}

/// Checks that sequence ids are given exactly if the model uses them.
fn check_sequence_ids(model: &CausalLm, given: bool) -> Result<(), CliError> {
    let expected = model.config().attn_config.attn_uses_sequence_id;
    if given == expected {
        return Ok(());
    }
    let what = if given { "given, but the model does not use it" } else { "missing" };
    Err(CliError::usage(format!("--sequence-id-file: {what}: attn_uses_sequence_id is {expected}")))
}

/// Positions whose logits are computed at once.
const CHUNK_TOKENS: usize = 256;

/// Writes `logits` `[batch, seq, vocab]` and `loss` `[batch]`, row by row.
fn write_scores(
    model: &CausalLm,
    rows: &LabeledRows,
    path: &Path,
    ctx: &Context,
) -> Result<Vec<f32>, CliError> {
    let (batch, seq) = rows.dims();
    let (logits, loss) = ([batch, seq, model.config().vocab_size], [batch]);
    let shapes: [(&str, &[usize]); 2] = [("logits", &logits), ("loss", &loss)];
    let mut writer = SafetensorsWriter::create(path, shapes.into_iter())?;
    let mut bar = rows.bar("score", ctx);
    let mut losses = Vec::with_capacity(batch);
    for row in rows.iter() {
        let hidden = model.hidden(&[row.ids], &row.mask)?;
        for at in (0..seq).step_by(CHUNK_TOKENS) {
            let chunk = hidden.narrow(1, at, CHUNK_TOKENS.min(seq - at))?.contiguous()?;
            let logits = model.logits(&chunk)?;
            expect_finite_values("a logit", &logits)?;
            writer.write(&logits)?;
        }
        losses.push(row_loss(model, &hidden, row.labels)?);
        bar.advance(1);
    }
    writer.write(&Tensor::from_slice(&losses, batch, &Device::Cpu)?)?;
    writer.finish()?;
    bar.finish();
    Ok(losses)
}

/// Refuses NaN and infinite values: exit code 5.
pub(crate) fn expect_finite_values(what: &str, values: &Tensor) -> Result<(), CliError> {
    // a finite number minus itself is 0, any other is NaN
    let sum = values.sub(values)?.sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()?;
    expect_finite(what, f64::from(sum))
}

/// Mean loss of a row in nats; NaN without a label.
fn row_loss(model: &CausalLm, hidden: &Tensor, labels: &[u32]) -> Result<f32, CliError> {
    let scored = num_scored(labels);
    if scored == 0 {
        return Ok(f32::NAN);
    }
    let sum = model.loss_sum(hidden, labels)?;
    Ok((sum / scored as f64) as f32)
}
