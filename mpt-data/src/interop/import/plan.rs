//! Plan of an import, and the manifest of what was imported.

use std::path::{Path, PathBuf};

use mpt_tokenize::Tokenizer;

use super::writer::ImportCounts;
use super::{BoundaryTokens, ImportOptions, conversion};
use crate::config::{
    DEFAULT_ROW_TOKENS, DEFAULT_SEED, Format, MAX_ROW_TOKENS, OnBadLine, default_row_tokens,
};
use crate::dedup::Dedup;
use crate::error::{Error, Result};
use crate::file_digest::FileDigest;
use crate::interop::mds::Value;
use crate::interop::sources::{ForeignData, ForeignSource};
use crate::manifest::{FORMAT, ManifestContents, Plan, SourcePlan, SourceRecord, SplitRecord, TokenAccount};
use crate::mixing::{Mixing, Share};
use crate::prepare::{InputFile, hash_inputs};
use crate::progress::Progress;

/// Smallest share of the samples that a source can have.
const LEAST_SHARE: f64 = 1e-9;

/// Data to import, and how.
pub(super) struct ImportRequest<'a> {
    pub(super) input: &'a Path,
    pub(super) sources: &'a [ForeignSource],
    pub(super) format: Format,
    pub(super) boundaries: &'a BoundaryTokens,
    pub(super) options: &'a ImportOptions,
}

impl ImportRequest<'_> {
    /// Plan of the data folder. The proportions are 0 until the tokens are counted.
    pub(super) fn plan(&self, tokenizer: &Tokenizer, progress: &mut dyn Progress) -> Result<Plan> {
        let (seq_len, row_tokens) = self.row_sizes()?;
        let inputs = self.hash_inputs(progress)?;
        let text =
            |token: &Option<(u32, String)>| token.as_ref().map_or(String::new(), |(_, text)| text.clone());
        Ok(Plan {
            format: FORMAT,
            seed: self.options.seed.unwrap_or(DEFAULT_SEED),
            seq_len,
            row_tokens,
            dedup: Dedup::none(),
            embedder: None,
            eval_fraction: 0.0,
            bos: text(&self.boundaries.bos),
            eos: text(&self.boundaries.eos),
            tokenizer: tokenizer.fingerprint().to_string(),
            vocab_size: tokenizer.num_ids(),
            mixing: Mixing::default(),
            sources: self.sources.iter().zip(inputs).map(|(s, inputs)| self.source_plan(s, inputs)).collect(),
        })
    }

    /// Checks that the files of the sources are still those of the plan.
    ///
    /// # Errors
    /// [`Error::InputChanged`] naming the file.
    pub(super) fn check_unchanged(&self, plan: &Plan, progress: &mut dyn Progress) -> Result<()> {
        for (now, planned) in self.hash_inputs(progress)?.iter().zip(&plan.sources) {
            let changed = now.iter().zip(&planned.inputs).find(|(now, planned)| now.file != **planned);
            if let Some((input, _)) = changed {
                return Err(Error::InputChanged { path: input.path.clone() });
            }
        }
        Ok(())
    }

    /// Tokens in a sample and in a row.
    fn row_sizes(&self) -> Result<(usize, usize)> {
        let seq_len = match self.options.seq_len {
            Some(seq_len) => seq_len,
            None => sample_len(&self.sources[0], self.options)?.unwrap_or(DEFAULT_ROW_TOKENS),
        };
        let row_tokens = if seq_len == 0 { 0 } else { default_row_tokens(seq_len) };
        if row_tokens == 0 || row_tokens > MAX_ROW_TOKENS {
            let problem = format!(
                "{seq_len} tokens cannot be a sample; expected 1 to {MAX_ROW_TOKENS}, or a multiple of {DEFAULT_ROW_TOKENS}"
            );
            return Err(conversion("seq-len", problem));
        }
        Ok((seq_len, row_tokens))
    }

    fn source_plan(&self, source: &ForeignSource, inputs: Vec<InputFile>) -> SourcePlan {
        let is_mds = self.format == Format::Mds;
        SourcePlan {
            name: source.name.clone(),
            proportion: Share::Proportion(0.0),
            format: self.format,
            text_field: if is_mds { self.options.column.clone() } else { String::new() },
            id_field: None,
            token_dtype: self.options.token_dtype.filter(|_| is_mds).map(|dtype| dtype.name().to_owned()),
            filters: Vec::new(),
            lists: Vec::new(),
            dedup: None,
            on_bad_line: OnBadLine::Fail,
            inputs: inputs.into_iter().map(|input| input.file).collect(),
        }
    }

    /// Files of each source, hashed.
    fn hash_inputs(&self, progress: &mut dyn Progress) -> Result<Vec<Vec<InputFile>>> {
        let input = self.input;
        let root = if input.is_dir() { input } else { input.parent().unwrap_or(Path::new("")) };
        let files = self.sources.iter().map(|source| source.files(root));
        hash_inputs(files.collect::<Result<Vec<Vec<(PathBuf, String)>>>>()?, progress)
    }
}

/// Tokens in a sample of an MDS source, where the first two samples have equally many.
fn sample_len(source: &ForeignSource, options: &ImportOptions) -> Result<Option<usize>> {
    let ForeignData::Mds(dataset) = &source.data else { return Ok(None) };
    let Some(shard) = dataset.shards().iter().find(|shard| shard.samples > 0) else { return Ok(None) };
    let Some(column) = shard.column(&options.column) else { return Ok(None) };
    let mut samples = dataset.samples(shard, false)?;
    let mut lengths = Vec::new();
    while let Some(sample) = samples.next_sample()?.filter(|_| lengths.len() < 2) {
        lengths.push(match (sample.value(column)?, options.token_dtype) {
            (Value::Numbers(numbers), _) => numbers.data.len() / numbers.dtype.bytes(),
            (Value::Bytes(bytes), Some(dtype)) => bytes.len() / dtype.bytes(),
            _ => return Ok(None),
        });
    }
    Ok(lengths.first().copied().filter(|first| lengths.iter().all(|length| length == first)))
}

/// Manifest of imported data. The share of a source is its share of the tokens.
pub(super) fn contents(
    mut plan: Plan,
    counts: Vec<ImportCounts>,
    files: Vec<FileDigest>,
    boundaries: &BoundaryTokens,
) -> ManifestContents {
    let all: u64 = counts.iter().map(|counts| counts.train.tokens).sum();
    let documents = counts.iter().map(|counts| counts.train.documents).sum();
    let mut sources = Vec::new();
    for (source, counts) in plan.sources.iter_mut().zip(counts) {
        source.proportion = Share::Proportion((counts.train.tokens as f64 / all as f64).max(LEAST_SHARE));
        let tokens = counts.train.tokens;
        sources.push(SourceRecord {
            name: source.name.clone(),
            proportion: source.proportion,
            documents: counts.documents,
            drops: counts.drops,
            tokens: TokenAccount { tokens_read: tokens, tokens_kept: tokens, ..TokenAccount::default() },
            train: counts.train,
            eval: SplitRecord { first_document: documents, ..SplitRecord::default() },
        });
    }
    let id = |token: &Option<(u32, String)>| token.as_ref().map(|(id, _)| *id);
    ManifestContents {
        plan,
        bos_id: id(&boundaries.bos),
        eos_id: id(&boundaries.eos),
        sources,
        dedup: Vec::new(),
        files,
        file_table: None,
    }
}
