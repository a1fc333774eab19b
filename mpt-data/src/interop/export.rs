//! Export of a data folder to another program's format: the training rows of every source, in the order of the shards.

use std::path::{Path, PathBuf};

use super::byte_progress::ByteProgress;
use super::dtype::Dtype;
use super::mds::{Encoding, MdsOptions, MdsWriter, Numbers, Value, merge_index};
use super::megatron::{self, MegatronWriter};
use crate::document_starts::DocumentStarts;
use crate::durable::Staging;
use crate::error::{Error, Result};
use crate::layout::{RowBuffers, decode_tokens};
use crate::manifest::{Manifest, SourceRecord};
use crate::progress::{Phase, Progress};
use crate::shard::ShardReader;

/// Column of the tokens.
const TOKENS_COLUMN: &str = "tokens";
/// Rows in one read.
const ROWS_PER_READ: u64 = 64;

/// Settings of an export.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// Format.
    pub target: ExportFormat,
    /// Type of the tokens; by default the narrowest that the format's own tools take for the vocabulary.
    pub token_dtype: Option<Dtype>,
}

/// Format of an export.
#[derive(Debug, Clone)]
pub enum ExportFormat {
    /// MDS: a folder of shards per source, and an index of all.
    Mds {
        /// Settings of the writer.
        options: MdsOptions,
        /// Tokens in a sample; by default those of the data.
        seq_len: Option<usize>,
    },
    /// Megatron: `tokens.bin` and `tokens.idx` in a folder per source, a sequence per document.
    Megatron,
}

/// Summary of an export.
#[derive(Debug, Clone)]
pub struct ExportSummary {
    /// Type of the tokens.
    pub token_dtype: Dtype,
    /// Sources, in order.
    pub sources: Vec<ExportedSource>,
}

/// Summary of one source of an export.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ExportedSource {
    /// Name of the source and of its folder.
    pub name: String,
    /// MDS samples, or documents.
    pub samples: u64,
    /// Tokens in the samples.
    pub tokens: u64,
    /// Tokens at the end that did not fill a sample and were left out.
    pub left_out: u64,
}

/// Writes the training rows of `data` into the folder `out`, which appears when it is complete.
///
/// # Errors
/// [`Error::Conversion`] names an option; [`Error::Taken`] a folder that holds something; [`Error::Shard`] a damaged row.
pub fn export(
    data: &Manifest,
    out: &Path,
    options: &ExportOptions,
    progress: &mut dyn Progress,
) -> Result<ExportSummary> {
    let vocab_size = data.plan().vocab_size;
    let token_dtype = options.token_dtype.unwrap_or_else(|| match options.target {
        ExportFormat::Megatron => megatron::dtype_for(vocab_size),
        ExportFormat::Mds { .. } if Dtype::U16.holds(vocab_size) => Dtype::U16,
        ExportFormat::Mds { .. } => Dtype::U32,
    });
    if !token_dtype.holds(vocab_size) {
        let problem = format!("{} cannot hold the ids of a vocabulary of {vocab_size}", token_dtype.name());
        return Err(Error::Conversion { option: "token-dtype", problem });
    }
    let staging = Staging::folder(out)?;
    let rows: u64 = data.sources().iter().map(|source| source.train.rows).sum();
    progress.start(Phase::Convert, rows * data.layout().tokens_width() as u64);
    let mut bytes_done = ByteProgress::new(progress);
    let sources = match &options.target {
        ExportFormat::Mds { options, seq_len } => {
            let seq_len = seq_len.unwrap_or(data.plan().seq_len);
            to_mds(data, staging.path(), options, seq_len, token_dtype, &mut bytes_done)?
        }
        ExportFormat::Megatron => {
            let one = |source| to_megatron(data, source, staging.path(), token_dtype, &mut bytes_done);
            data.sources().iter().map(one).collect::<Result<_>>()?
        }
    };
    progress.finish();
    staging.commit()?;
    Ok(ExportSummary { token_dtype, sources })
}

fn to_mds(
    data: &Manifest,
    out: &Path,
    options: &MdsOptions,
    seq_len: usize,
    dtype: Dtype,
    bytes_done: &mut ByteProgress<'_>,
) -> Result<Vec<ExportedSource>> {
    if seq_len == 0 {
        return Err(Error::Conversion { option: "seq-len", problem: "0 tokens are no sample".into() });
    }
    let (mut sources, mut written) = (Vec::new(), Vec::new());
    for source in data.sources() {
        let columns = [(TOKENS_COLUMN.to_owned(), Encoding::Array(Some(dtype), None))];
        let mut writer = MdsWriter::create(&out.join(&source.name), &columns, options.clone())?;
        sources.push(source_to_mds(data, source, &mut writer, seq_len, dtype, bytes_done)?);
        written.push((source.name.clone(), writer.finish()?));
    }
    merge_index(out, written)?;
    Ok(sources)
}

/// Writes the samples of one source.
///
/// # Errors
/// [`Error::SmallSource`] for a source without a whole sample.
fn source_to_mds(
    data: &Manifest,
    source: &SourceRecord,
    writer: &mut MdsWriter,
    seq_len: usize,
    dtype: Dtype,
    bytes_done: &mut ByteProgress<'_>,
) -> Result<ExportedSource> {
    let (mut samples, mut pending) = (0, Vec::<u32>::new());
    for_each_row(data, source, bytes_done, |tokens, _| {
        pending.extend(tokens);
        let whole = pending.len() / seq_len * seq_len;
        for ids in pending[..whole].chunks_exact(seq_len) {
            writer.push(&[Value::Numbers(Numbers::of_ids(dtype, ids))])?;
            samples += 1;
        }
        pending.drain(..whole);
        Ok(())
    })?;
    let (name, left_out) = (source.name.clone(), pending.len() as u64);
    if samples == 0 {
        return Err(Error::SmallSource {
            source_name: name,
            split: "training",
            tokens: left_out,
            what: "sequence",
            needed: seq_len as u64,
            field: "seq_len",
        });
    }
    Ok(ExportedSource { name, samples, tokens: samples * seq_len as u64, left_out })
}

fn to_megatron(
    data: &Manifest,
    source: &SourceRecord,
    out: &Path,
    dtype: Dtype,
    bytes_done: &mut ByteProgress<'_>,
) -> Result<ExportedSource> {
    let prefix: PathBuf = out.join(&source.name).join(TOKENS_COLUMN);
    let mut writer = MegatronWriter::create(&prefix, dtype)?;
    let mut tokens_written = 0;
    for_each_row(data, source, bytes_done, |tokens, starts| {
        let mut from = 0;
        // The first token of all begins the first document, with none to end before it.
        for at in (0..tokens.len()).filter(|&at| starts.contains(at)) {
            if tokens_written + at as u64 > 0 {
                writer.push(&tokens[from..at])?;
                writer.end_document()?;
            }
            from = at;
        }
        tokens_written += tokens.len() as u64;
        writer.push(&tokens[from..])
    })?;
    writer.end_document()?;
    let samples = writer.finish()?;
    Ok(ExportedSource { name: source.name.clone(), samples, tokens: tokens_written, left_out: 0 })
}

/// Calls `on_row` with the tokens and document starts of each training row of a source, in order.
fn for_each_row(
    data: &Manifest,
    source: &SourceRecord,
    bytes_done: &mut ByteProgress<'_>,
    mut on_row: impl FnMut(&[u32], DocumentStarts<'_>) -> Result<()>,
) -> Result<()> {
    let layout = data.layout();
    let (mut scratch, mut tokens) = (RowBuffers::default(), Vec::new());
    for file in &source.train.files {
        let reader = ShardReader::open(data.dir(), file, layout)?;
        for first in (0..file.rows).step_by(ROWS_PER_READ as usize) {
            let mut result = Ok(());
            reader.rows(first, ROWS_PER_READ.min(file.rows - first), &mut scratch, |row| {
                if result.is_ok() {
                    tokens.clear();
                    decode_tokens(row.tokens, layout.token_bytes, &mut tokens);
                    result = on_row(&tokens, row.starts())
                        .and_then(|()| bytes_done.step(layout.tokens_width() as u64));
                }
            })?;
            result?;
        }
    }
    Ok(())
}
