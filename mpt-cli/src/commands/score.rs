//! `mpt score`: logits and losses of given ids. Also holds the input files shared with `mpt grad`.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use mpt_core::{AttnMask, CausalLm, IGNORE_LABEL, SafetensorsWriter};
use serde::de::DeserializeOwned;

use crate::exit::{CliError, ExitStatus, expect_finite};
use crate::export;
use crate::model_args::AdapterModelArgs;
use crate::output::path_text;
use crate::progress::{DelayedProgressBar, Unit};
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

/// Files of the rows to score.
#[derive(Debug, clap::Args)]
pub(crate) struct LabeledRowsArgs {
    /// Equally long lists of token ids, as JSON
    #[arg(long, value_name = "FILE")]
    ids_file: PathBuf,
    /// What each position is scored against, shaped like the ids; -100 is left out [default: the ids]
    #[arg(long, value_name = "FILE")]
    labels_file: Option<PathBuf>,
    /// The packed sequence of each token, shaped like the ids
    #[arg(long, value_name = "FILE")]
    sequence_id_file: Option<PathBuf>,
}

/// Rows to score: ids `[batch, seq]`, the label of each position, and the attention mask.
pub(crate) struct LabeledRows {
    ids: Vec<Vec<u32>>,
    labels: Vec<u32>,
    mask: AttnMask,
}

/// Row of [`LabeledRows`].
pub(crate) struct LabeledRow<'a> {
    pub(crate) ids: &'a [u32],
    pub(crate) labels: &'a [u32],
    pub(crate) mask: AttnMask,
}

impl LabeledRows {
    /// Shape of the ids, `(batch, seq)`.
    fn dims(&self) -> (usize, usize) {
        (self.ids.len(), self.ids[0].len())
    }

    /// Number of positions with a label.
    pub(crate) fn num_scored(&self) -> usize {
        num_scored(&self.labels)
    }

    /// Rows.
    pub(crate) fn iter(&self) -> impl Iterator<Item = LabeledRow<'_>> {
        let labels = self.labels.chunks_exact(self.dims().1);
        let rows = self.ids.iter().zip(labels).enumerate();
        rows.map(|(row, (ids, labels))| LabeledRow { ids, labels, mask: self.mask.row(row) })
    }

    /// Progress bar over the rows.
    pub(crate) fn bar(&self, name: &'static str, ctx: &Context) -> DelayedProgressBar {
        DelayedProgressBar::new(ctx.out.log(), name, Unit::Count("rows"), self.ids.len() as u64)
    }
}

/// Label of a position without a loss, as in PyTorch.
const IGNORE_INDEX: i64 = -100;

impl LabeledRowsArgs {
    /// Files.
    pub(crate) fn files(&self) -> Vec<&Path> {
        let more = [&self.labels_file, &self.sequence_id_file];
        let more = more.into_iter().filter_map(Option::as_deref);
        std::iter::once(self.ids_file.as_path()).chain(more).collect()
    }

    /// Reads the files. `mask` is the path of `--mask-file`.
    pub(crate) fn read(&self, mask: Option<&Path>) -> Result<LabeledRows, CliError> {
        let ids: Vec<Vec<u32>> = read_json(&self.ids_file)?;
        let seq = ids.first().map_or(0, Vec::len);
        if seq == 0 || ids.iter().any(|row| row.len() != seq) {
            let message = format!(
                "{}: expected one or more equally long lists of ids, none empty",
                self.ids_file.display()
            );
            return Err(CliError::data(message));
        }
        let shaped = |path: &Path| -> Result<Vec<i64>, CliError> {
            let rows: Vec<Vec<i64>> = read_json(path)?;
            if rows.len() != ids.len() || rows.iter().any(|row| row.len() != seq) {
                let message = format!(
                    "{}: expected {} lists of {seq} numbers, shaped like the ids",
                    path.display(),
                    ids.len()
                );
                return Err(CliError::data(message));
            }
            Ok(rows.concat())
        };
        let padding_mask = mask.map(shaped).transpose()?;
        let targets = match &self.labels_file {
            Some(path) => shaped(path)?,
            None => ids.iter().flatten().map(|&id| i64::from(id)).collect(),
        };
        if let Some(path) = &self.labels_file {
            check_labels(path, &targets, seq)?;
        }
        let labels = shift_labels(&targets, padding_mask.as_deref(), seq);
        let mask = match (&self.sequence_id_file, padding_mask) {
            (Some(path), _) => sequence_mask(path, &shaped(path)?, ids.len(), seq)?,
            (None, Some(padding_mask)) => {
                let bytes: Vec<u8> =
                    padding_mask.iter().map(|&value| u8::try_from(value).unwrap_or(u8::MAX)).collect();
                AttnMask::padded(&bytes, ids.len(), seq)?
            }
            (None, None) => AttnMask::causal(ids.len(), seq),
        };
        Ok(LabeledRows { ids, labels, mask })
    }
}

/// Checks that each label is a token id or [`IGNORE_INDEX`].
fn check_labels(path: &Path, labels: &[i64], seq: usize) -> Result<(), CliError> {
    let is_label = |label: i64| label == IGNORE_INDEX || (0..i64::from(IGNORE_LABEL)).contains(&label);
    expect_each(path, labels, seq, is_label, "a token id, or -100 for a position that is left out")
}

/// Refuses the first number that does not satisfy `holds`, with its row and position.
fn expect_each(
    path: &Path,
    numbers: &[i64],
    seq: usize,
    holds: impl Fn(i64) -> bool,
    expected: &str,
) -> Result<(), CliError> {
    let Some(at) = numbers.iter().position(|&number| !holds(number)) else { return Ok(()) };
    let (row, position, found) = (at / seq, at % seq, numbers[at]);
    let message =
        format!("{}: row {row}, position {position} is {found}, expected {expected}", path.display());
    Err(CliError::data(message))
}

fn sequence_mask(path: &Path, ids: &[i64], batch: usize, seq: usize) -> Result<AttnMask, CliError> {
    expect_each(path, ids, seq, |id| i32::try_from(id).is_ok(), "a number of 32 bits")?;
    // ids need only differ: a negative one wraps to another number
    let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
    Ok(AttnMask::documents(&ids, batch, seq)?)
}

/// Labels of next-token prediction: position t is scored against target t + 1, if both are tokens and the target is not
/// ignored.
fn shift_labels(targets: &[i64], padding_mask: Option<&[i64]>, seq: usize) -> Vec<u32> {
    let is_token = |at: usize| padding_mask.is_none_or(|padding_mask| padding_mask[at] == 1);
    let label = |at: usize| {
        let next = at + 1;
        let scored = !next.is_multiple_of(seq) && is_token(at) && is_token(next);
        if scored { u32::try_from(targets[next]).unwrap_or(IGNORE_LABEL) } else { IGNORE_LABEL }
    };
    (0..targets.len()).map(label).collect()
}

/// Reads a JSON file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, CliError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| CliError::read(ExitStatus::Data, path, error))?;
    serde_json::from_str(&text).map_err(|error| CliError::data(format!("{}: {error}", path.display())))
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let inputs = [args.rows.files(), args.mask_file.iter().map(PathBuf::as_path).collect()].concat();
    let models = std::iter::once(args.model.base.model.as_path()).chain(args.model.adapter.as_deref());
    export::refuse_input(&args.out, models, &inputs)?;
    let output = export::Replacement::begin(&args.out)?;
    let model = args.model.model(ctx)?;
    let rows = args.rows.read(args.mask_file.as_deref())?;
    if args.rows.sequence_id_file.is_some() != model.config().attn_config.attn_uses_sequence_id {
        let what = if args.rows.sequence_id_file.is_some() {
            "given, but the model does not use it"
        } else {
            "missing"
        };
        let message = format!(
            "--sequence-id-file: {what}: attn_uses_sequence_id is {}",
            model.config().attn_config.attn_uses_sequence_id
        );
        return Err(CliError::usage(message));
    }
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

fn num_scored(labels: &[u32]) -> usize {
    labels.iter().filter(|&&label| label != IGNORE_LABEL).count()
}
