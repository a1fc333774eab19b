//! From a data folder to another program's format: the training rows of every source, in the order in which they lie.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::dtype::Dtype;
use super::import::ByteProgress;
use super::mds::{Encoding, MdsDataset, MdsOptions, MdsShard, MdsWriter, Numbers, Value, merge_index};
use super::megatron::{self, MegatronWriter};
use crate::durable::Staging;
use crate::error::{Error, Result};
use crate::layout::{RowBuffers, get_tokens};
use crate::manifest::{Manifest, SourceRecord};
use crate::pack::is_start;
use crate::progress::{Phase, Progress};
use crate::shard::ShardReader;

/// The column that tokens go to.
const COLUMN: &str = "tokens";
/// Rows read at once.
const ROWS: u64 = 64;

/// What an export is told.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The format.
    pub target: ExportFormat,
    /// The type of the tokens; by default the narrowest that the format's own tools take for the vocabulary.
    pub token_dtype: Option<Dtype>,
}

/// A format to write.
#[derive(Debug, Clone)]
pub enum ExportFormat {
    /// A folder of MDS shards per source, and an index of all.
    Mds {
        /// How they are written.
        options: MdsOptions,
        /// Tokens in a sample; by default those of the data.
        seq_len: Option<usize>,
    },
    /// `tokens.bin` and `tokens.idx` in a folder per source; a sequence per document.
    Megatron,
}

/// What an export gave.
#[derive(Debug, Clone)]
pub struct ExportSummary {
    /// The type of the tokens.
    pub token_dtype: Dtype,
    /// The sources, in order.
    pub sources: Vec<ExportedSource>,
}

/// What an export gave of a source.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ExportedSource {
    /// Its name, that of its folder.
    pub name: String,
    /// MDS samples, or documents.
    pub samples: u64,
    /// Tokens in them.
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
    let mut progress_bytes = ByteProgress::new(progress);
    let sources = match &options.target {
        ExportFormat::Mds { options, seq_len } => {
            let seq_len = seq_len.unwrap_or(data.plan().seq_len);
            to_mds(data, staging.path(), options, seq_len, token_dtype, &mut progress_bytes)?
        }
        ExportFormat::Megatron => {
            let one = |source| to_megatron(data, source, staging.path(), token_dtype, &mut progress_bytes);
            data.sources().iter().map(one).collect::<Result<_>>()?
        }
    };
    progress.finish();
    staging.commit()?;
    Ok(ExportSummary { token_dtype, sources })
}

/// Writes the dataset at `input` again: other compression, hashes or size of shards, the same folders, columns and samples.
/// Says how many samples there are.
///
/// # Errors
/// [`Error::BrokenInput`] naming shard, sample and column; [`Error::Taken`] for a folder that holds something.
pub fn rewrite(
    input: &Path,
    out: &Path,
    options: &MdsOptions,
    verify: bool,
    progress: &mut dyn Progress,
) -> Result<u64> {
    let dataset = MdsDataset::open(input)?;
    let staging = Staging::folder(out)?;
    progress.start(Phase::Convert, dataset.shards().iter().map(|shard| shard.raw.bytes).sum());
    let mut progress_bytes = ByteProgress::new(progress);
    let (mut seen, mut written, mut samples) = (HashSet::new(), Vec::new(), 0);
    for shard in dataset.shards() {
        let folder = shard.folder();
        if seen.insert(folder) {
            let of_folder: Vec<_> =
                dataset.shards().iter().filter(|shard| shard.folder() == folder).collect();
            samples += of_folder.iter().map(|shard| shard.samples).sum::<u64>();
            let name = super::sources::name_in(Path::new(""), folder);
            let index = rewrite_folder(
                &dataset,
                &of_folder,
                &staging.path().join(folder),
                options,
                verify,
                &mut progress_bytes,
            )?;
            written.push((name, index));
        }
    }
    if written.iter().any(|(folder, _)| !folder.is_empty()) || written.is_empty() {
        merge_index(staging.path(), written)?;
    }
    progress.finish();
    staging.commit()?;
    Ok(samples)
}

fn rewrite_folder(
    dataset: &MdsDataset,
    shards: &[&MdsShard],
    out: &Path,
    options: &MdsOptions,
    verify: bool,
    progress_bytes: &mut ByteProgress<'_>,
) -> Result<Vec<serde_json::Value>> {
    let columns = &shards[0].columns;
    let described: Vec<_> =
        columns.iter().map(|column| (column.name.clone(), column.encoding.clone())).collect();
    let mut writer = MdsWriter::create(out, &described, options.clone())?;
    for shard in shards {
        if shard.columns != *columns {
            let path = dataset.dir().join(&shard.raw.path);
            return Err(Error::input(&path, "has other columns than the shards before it in its folder"));
        }
        let mut samples = dataset.samples(shard, verify)?;
        while let Some(sample) = samples.next_sample()? {
            let values = (0..columns.len()).map(|column| sample.value(column)).collect::<Result<Vec<_>>>()?;
            writer.push(&values)?;
            progress_bytes.step((0..columns.len()).map(|column| sample.bytes(column).len() as u64).sum())?;
        }
    }
    writer.finish()
}

fn to_mds(
    data: &Manifest,
    out: &Path,
    options: &MdsOptions,
    seq_len: usize,
    dtype: Dtype,
    progress_bytes: &mut ByteProgress<'_>,
) -> Result<Vec<ExportedSource>> {
    if seq_len == 0 {
        return Err(Error::Conversion { option: "seq-len", problem: "0 tokens are no sample".into() });
    }
    let columns = [(COLUMN.to_owned(), Encoding::Array(Some(dtype), None))];
    let (mut sources, mut written) = (Vec::new(), Vec::new());
    for source in data.sources() {
        let mut writer = MdsWriter::create(&out.join(&source.name), &columns, options.clone())?;
        let mut samples = 0;
        let mut pending: Vec<u32> = Vec::new();
        each_row(data, source, progress_bytes, |tokens, _| {
            pending.extend(tokens);
            let whole = pending.len() / seq_len * seq_len;
            for ids in pending[..whole].chunks_exact(seq_len) {
                writer.push(&[Value::Numbers(Numbers::of_ids(dtype, ids))])?;
                samples += 1;
            }
            pending.drain(..whole);
            Ok(())
        })?;
        if samples == 0 {
            let (source_name, tokens) = (source.name.clone(), pending.len() as u64);
            let needed = seq_len as u64;
            return Err(Error::SmallSource {
                source_name,
                split: "training",
                tokens,
                what: "sequence",
                needed,
                field: "seq_len",
            });
        }
        written.push((source.name.clone(), writer.finish()?));
        let (name, left_out) = (source.name.clone(), pending.len() as u64);
        sources.push(ExportedSource { name, samples, tokens: samples * seq_len as u64, left_out });
    }
    merge_index(out, written)?;
    Ok(sources)
}

fn to_megatron(
    data: &Manifest,
    source: &SourceRecord,
    out: &Path,
    dtype: Dtype,
    progress_bytes: &mut ByteProgress<'_>,
) -> Result<ExportedSource> {
    let prefix: PathBuf = out.join(&source.name).join(COLUMN);
    let mut writer = MegatronWriter::create(&prefix, dtype)?;
    let mut tokens_written = 0;
    each_row(data, source, progress_bytes, |tokens, starts| {
        let mut from = 0;
        // The first token of all begins a document; there is none to end before it.
        for at in (0..tokens.len()).filter(|&at| is_start(starts, at)) {
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

/// Gives the training rows of a source in order: tokens, and the bitmap of document starts.
fn each_row(
    data: &Manifest,
    source: &SourceRecord,
    progress_bytes: &mut ByteProgress<'_>,
    mut each: impl FnMut(&[u32], &[u8]) -> Result<()>,
) -> Result<()> {
    let layout = data.layout();
    let (mut scratch, mut tokens, mut starts) = (RowBuffers::default(), Vec::new(), Vec::new());
    for file in &source.train.files {
        let reader = ShardReader::open(data.dir(), file, layout)?;
        for first in (0..file.rows).step_by(ROWS as usize) {
            tokens.clear();
            starts.clear();
            reader.rows(first, ROWS.min(file.rows - first), &mut scratch, |row| {
                get_tokens(row.tokens, layout.token_bytes, &mut tokens);
                starts.extend_from_slice(row.starts());
            })?;
            let rows = tokens
                .chunks_exact(layout.row_tokens)
                .zip(starts.chunks_exact(layout.row_tokens.div_ceil(8)));
            for (tokens, starts) in rows {
                each(tokens, starts)?;
                progress_bytes.step(layout.tokens_width() as u64)?;
            }
        }
    }
    Ok(())
}
