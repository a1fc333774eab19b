//! Flags and files of labeled rows, shared by `mpt score` and `mpt grad`: ids, labels, masks.

use std::path::{Path, PathBuf};

use mpt_core::{AttnMask, IGNORE_LABEL};

use crate::exit::CliError;
use crate::json_file::read_json;
use crate::progress::{DelayedProgressBar, Unit};
use crate::settings::Context;

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

/// Label of a position without a loss, as in PyTorch.
const IGNORE_INDEX: i64 = -100;

impl LabeledRowsArgs {
    /// Files.
    pub(crate) fn files(&self) -> Vec<&Path> {
        let more = [&self.labels_file, &self.sequence_id_file];
        let more = more.into_iter().filter_map(Option::as_deref);
        std::iter::once(self.ids_file.as_path()).chain(more).collect()
    }

    /// Whether sequence ids are given.
    pub(crate) fn has_sequence_ids(&self) -> bool {
        self.sequence_id_file.is_some()
    }

    /// Reads the files. `mask` is the path of `--mask-file`.
    pub(crate) fn read(&self, mask: Option<&Path>) -> Result<LabeledRows, CliError> {
        let ids = read_ids(&self.ids_file)?;
        let shape @ (batch, seq) = (ids.len(), ids[0].len());
        let padding = mask.map(|path| read_shaped(path, shape)).transpose()?;
        let targets = match &self.labels_file {
            Some(path) => read_labels(path, shape)?,
            None => ids.iter().flatten().map(|&id| i64::from(id)).collect(),
        };
        let labels = shift_labels(&targets, padding.as_deref(), seq);
        let mask = match (&self.sequence_id_file, padding) {
            (Some(path), _) => sequence_mask(path, shape)?,
            (None, Some(padding)) => padding_mask(&padding, shape)?,
            (None, None) => AttnMask::causal(batch, seq),
        };
        Ok(LabeledRows { ids, labels, mask })
    }
}

impl LabeledRows {
    /// Shape of the ids, `(batch, seq)`.
    pub(crate) fn dims(&self) -> (usize, usize) {
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

/// Reads the rows of ids, equally long and not empty.
fn read_ids(path: &Path) -> Result<Vec<Vec<u32>>, CliError> {
    let ids: Vec<Vec<u32>> = read_json(path)?;
    let seq = ids.first().map_or(0, Vec::len);
    if seq == 0 || ids.iter().any(|row| row.len() != seq) {
        let message =
            format!("{}: expected one or more equally long lists of ids, none empty", path.display());
        return Err(CliError::data(message));
    }
    Ok(ids)
}

/// Reads numbers shaped like the ids, `[batch, seq]`.
fn read_shaped(path: &Path, (batch, seq): (usize, usize)) -> Result<Vec<i64>, CliError> {
    let rows: Vec<Vec<i64>> = read_json(path)?;
    if rows.len() != batch || rows.iter().any(|row| row.len() != seq) {
        let message =
            format!("{}: expected {batch} lists of {seq} numbers, shaped like the ids", path.display());
        return Err(CliError::data(message));
    }
    Ok(rows.concat())
}

/// Reads labels: token ids, or [`IGNORE_INDEX`].
fn read_labels(path: &Path, shape: (usize, usize)) -> Result<Vec<i64>, CliError> {
    let labels = read_shaped(path, shape)?;
    let is_label = |label: i64| label == IGNORE_INDEX || (0..i64::from(IGNORE_LABEL)).contains(&label);
    expect_each(path, &labels, shape.1, is_label, "a token id, or -100 for a position that is left out")?;
    Ok(labels)
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

/// Reads sequence ids as a mask that keeps the sequences of a row apart.
fn sequence_mask(path: &Path, shape @ (batch, seq): (usize, usize)) -> Result<AttnMask, CliError> {
    let ids = read_shaped(path, shape)?;
    expect_each(path, &ids, seq, |id| i32::try_from(id).is_ok(), "a number of 32 bits")?;
    // ids need only differ: a negative one wraps to another number
    let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
    Ok(AttnMask::documents(&ids, batch, seq)?)
}

/// Mask of padded rows: 1 for tokens, 0 for padding.
fn padding_mask(padding: &[i64], (batch, seq): (usize, usize)) -> Result<AttnMask, CliError> {
    let bytes: Vec<u8> = padding.iter().map(|&value| u8::try_from(value).unwrap_or(u8::MAX)).collect();
    Ok(AttnMask::padded(&bytes, batch, seq)?)
}

/// Labels of next-token prediction: position t is scored against target t + 1, if both are tokens and the target is not
/// ignored.
fn shift_labels(targets: &[i64], padding: Option<&[i64]>, seq: usize) -> Vec<u32> {
    let is_token = |at: usize| padding.is_none_or(|padding| padding[at] == 1);
    let label = |at: usize| {
        let next = at + 1;
        let scored = !next.is_multiple_of(seq) && is_token(at) && is_token(next);
        if scored { u32::try_from(targets[next]).unwrap_or(IGNORE_LABEL) } else { IGNORE_LABEL }
    };
    (0..targets.len()).map(label).collect()
}

/// Number of labels that are not ignored.
pub(crate) fn num_scored(labels: &[u32]) -> usize {
    labels.iter().filter(|&&label| label != IGNORE_LABEL).count()
}
