//! Tokens of a source, document by document: documents begin where an index or a boundary token says.

use std::path::Path;

use super::writer::SourceWriter;
use super::{BoundaryTokens, ImportOptions, conversion};
use crate::error::{Error, Result};
use crate::interop::byte_progress::ByteProgress;
use crate::interop::mds::{Encoding, MdsDataset, MdsSample, MdsShard};
use crate::interop::megatron::{self, IndexedDataset};
use crate::interop::sources::{ForeignData, ForeignSource};

/// Reads a source into its writer.
pub(super) fn read(
    source: &ForeignSource,
    into: &mut SourceWriter<'_, '_>,
    vocab_size: usize,
    boundaries: &BoundaryTokens,
    options: &ImportOptions,
    bytes_done: &mut ByteProgress<'_>,
) -> Result<()> {
    match &source.data {
        ForeignData::Mds(dataset) => {
            let mut reader =
                MdsTokenReader { vocab_size, boundaries, options, into, ids: Vec::new(), starts: true };
            reader.read(dataset, bytes_done)
        }
        ForeignData::Megatron(parts) => parts
            .iter()
            .try_for_each(|(prefix, part)| read_indexed(prefix, part, into, vocab_size, bytes_done)),
    }
}

fn read_indexed(
    prefix: &Path,
    part: &IndexedDataset,
    into: &mut SourceWriter<'_, '_>,
    vocab_size: usize,
    bytes_done: &mut ByteProgress<'_>,
) -> Result<()> {
    let name = prefix.file_name().unwrap_or_default().to_string_lossy();
    let (mut documents, mut ids) = (part.read()?, Vec::new());
    for number in 0..part.documents() {
        into.begin(format!("{name}:{number}"))?;
        documents.next_document(|bytes| {
            ids.clear();
            part.dtype().ids(bytes, vocab_size, &mut ids).map_err(|problem| {
                Error::input(&megatron::file(prefix, ".bin"), format!("document {number}: {problem}"))
            })?;
            into.extend(&ids)?;
            bytes_done.step(bytes.len() as u64)
        })?;
    }
    // The end of the dataset is checked.
    documents.next_document(|_| Ok(())).map(|_| ())
}

/// Reader of the tokens of MDS samples, cut at boundary tokens.
struct MdsTokenReader<'a, 'b, 'c> {
    vocab_size: usize,
    boundaries: &'a BoundaryTokens,
    options: &'a ImportOptions,
    into: &'a mut SourceWriter<'b, 'c>,
    ids: Vec<u32>,
    /// Whether the next token begins a document.
    starts: bool,
}

impl MdsTokenReader<'_, '_, '_> {
    fn read(&mut self, dataset: &MdsDataset, bytes_done: &mut ByteProgress<'_>) -> Result<()> {
        let mut folder = None;
        for shard in dataset.shards() {
            // Each folder was written by a process of its own, which began with a document.
            self.starts |= folder.replace(shard.folder()).is_some_and(|before| before != shard.folder());
            let column = self.column(dataset, shard)?;
            let mut samples = dataset.samples(shard, self.options.verify)?;
            while let Some(sample) = samples.next_sample()? {
                self.sample(shard, &sample, column)?;
                bytes_done.step(sample.bytes(column).len() as u64)?;
            }
        }
        Ok(())
    }

    fn sample(&mut self, shard: &MdsShard, sample: &MdsSample<'_>, column: usize) -> Result<()> {
        let bytes = sample.bytes(column);
        let typed = match (&sample.columns[column].encoding, self.options.token_dtype) {
            (Encoding::Bytes, Some(dtype)) => Ok((dtype, bytes)),
            (encoding, _) => encoding.numbers(bytes).map(|(dtype, _, data)| (dtype, data)),
        };
        if let (Encoding::Bytes, Some(dtype)) = (&sample.columns[column].encoding, self.options.token_dtype)
            && let Some(wide) = dtype.is_half_of(bytes)
        {
            let problem = format!(
                "as {}, every second token of sample {} is 0: its tokens have {wide} bytes or more; name a type of that size, with llm-foundry int64",
                dtype.name(),
                sample.index()
            );
            return Err(conversion("token-dtype", problem));
        }
        self.ids.clear();
        typed
            .and_then(|(dtype, data)| dtype.ids(data, self.vocab_size, &mut self.ids))
            .map_err(|problem| sample.broken(column, &problem))?;
        self.starts |= self.boundaries.is_none();
        let document_id = |at: usize| format!("{}:{}:{at}", shard.raw.path.display(), sample.index());
        self.cut(document_id)
    }

    /// Writes the tokens of a sample, one document at a time.
    fn cut(&mut self, document_id: impl Fn(usize) -> String) -> Result<()> {
        let is =
            |token: &Option<(u32, String)>, id: u32| token.as_ref().is_some_and(|(known, _)| *known == id);
        let mut from = 0;
        for at in 0..self.ids.len() {
            let id = self.ids[at];
            if self.starts || is(&self.boundaries.bos, id) {
                if from < at {
                    self.into.extend(&self.ids[from..at])?;
                }
                self.into.begin(document_id(at))?;
                from = at;
            }
            self.starts = is(&self.boundaries.eos, id);
        }
        if from < self.ids.len() { self.into.extend(&self.ids[from..]) } else { Ok(()) }
    }

    /// Index of the column with the tokens, if they can be read.
    fn column(&self, dataset: &MdsDataset, shard: &MdsShard) -> Result<usize> {
        let name = &self.options.column;
        let path = dataset.dir().join(&shard.raw.path);
        let Some(column) = shard.column(name) else {
            let known: Vec<_> = shard.columns.iter().map(|column| format!("`{}`", column.name)).collect();
            let problem = format!("{} has no column `{name}`; it has {}", path.display(), known.join(", "));
            return Err(conversion("column", problem));
        };
        match (&shard.columns[column].encoding, self.options.token_dtype) {
            (Encoding::Bytes, None) => Err(conversion(
                "token-dtype",
                format!(
                    "column `{name}` of {} is `bytes`, which does not say what its tokens are; name their type, with llm-foundry int64 unless it was told otherwise",
                    path.display()
                ),
            )),
            (Encoding::Bytes, Some(_)) | (Encoding::Array(..), None) => Ok(column),
            (encoding @ Encoding::Array(..), Some(_)) => Err(conversion(
                "token-dtype",
                format!(
                    "column `{name}` of {} is `{encoding}` and says its type itself; leave this out",
                    path.display()
                ),
            )),
            (encoding, _) => {
                let problem = format!(
                    "column `{name}` is `{encoding}`, expected tokens: an `ndarray` of integers, or `bytes`; name another column"
                );
                Err(Error::input(&path, problem))
            }
        }
    }
}
