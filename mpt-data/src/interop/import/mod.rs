//! From another program's tokens to a data folder that `verify`, `inspect`, `cat` and training take.

mod tokens;
mod writer;

use std::path::{Path, PathBuf};

use mpt_tokenize::Tokenizer;

pub(super) use self::tokens::ByteProgress;
use self::writer::{ImportCounts, ImportWriter};
use super::dtype::Dtype;
use super::mds::Value;
use super::sources::{self, ForeignData, ForeignSource};
use crate::config::{
    DEFAULT_ROW_TOKENS, DEFAULT_SEED, Format, MAX_ROW_TOKENS, OnBadLine, default_row_tokens,
};
use crate::dedup::Dedup;
use crate::durable::{self, Staging};
use crate::error::{Error, Result};
use crate::file_digest::FileDigest;
use crate::hash;
use crate::manifest::{
    FORMAT, MANIFEST, Manifest, ManifestContents, Plan, SourcePlan, SourceRecord, Split, SplitRecord,
    TOKENIZER, TokenAccount,
};
use crate::mixing::{Mixing, Share};
use crate::prepare::{InputFile, changes, hash_all};
use crate::progress::{Note, Phase, Progress};

/// The token that ends documents, for who names none.
const DEFAULT_EOS: &str = "<|endoftext|>";
/// The smallest share of the samples that a source can have.
const LEAST_SHARE: f64 = 1e-9;

/// What an import is told.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The column with the tokens, in MDS.
    pub column: String,
    /// The type of the tokens, where their column is `bytes` and does not say it.
    pub token_dtype: Option<Dtype>,
    /// The tokens around documents; by default `<|endoftext|>` after each in MDS, and none in Megatron data.
    pub boundaries: Option<BoundaryTokens>,
    /// Tokens in a training sample; by default those of an MDS sample.
    pub seq_len: Option<usize>,
    /// The default seed of the order; 17 by default.
    pub seed: Option<u64>,
    /// Whether the hashes that an MDS index gives are checked.
    pub verify: bool,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            column: "tokens".into(),
            token_dtype: None,
            boundaries: None,
            seq_len: None,
            seed: None,
            verify: true,
        }
    }
}

/// The tokens around documents: id, and text as the tokenizer has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BoundaryTokens {
    /// The token before each document.
    pub bos: Option<(u32, String)>,
    /// The token after each document.
    pub eos: Option<(u32, String)>,
}

impl BoundaryTokens {
    fn is_none(&self) -> bool {
        self.bos.is_none() && self.eos.is_none()
    }
}

/// What an import gave.
#[derive(Debug, Clone)]
pub struct ImportSummary {
    /// The data.
    pub manifest: Manifest,
    /// What it was.
    pub format: Format,
    /// The tokens around documents.
    pub boundaries: BoundaryTokens,
}

/// Makes the data folder `out` of what lies at `input`: a source per subfolder, or one named after the folder, each with
/// the share of the samples that it has of the tokens. Nothing is held out.
///
/// Document starts are those that a Megatron index gives. MDS does not keep them: there a document ends after each EOS and
/// begins at each BOS, and where neither is named every sample is one.
///
/// The folder appears when it is complete. The same input and options give the same bytes.
///
/// # Errors
/// [`Error::BrokenInput`] names file and place in damaged input; [`Error::Conversion`] an option; [`Error::Taken`] and
/// [`Error::Changed`] a folder that holds something else; [`Error::SmallSource`] a source that does not fill a row.
pub fn import(
    input: &Path,
    out: &Path,
    tokenizer: &Tokenizer,
    options: &ImportOptions,
    progress: &mut dyn Progress,
) -> Result<ImportSummary> {
    let found = sources::find(input)?;
    let format = if matches!(found[0].data, ForeignData::Mds(_)) { Format::Mds } else { Format::Megatron };
    let boundaries = boundaries(format, tokenizer, options)?;
    let plan = plan(input, &found, format, tokenizer, &boundaries, options, progress)?;
    let imported = |manifest| ImportSummary { manifest, format, boundaries: boundaries.clone() };
    if out.join(MANIFEST).exists() {
        return finished(out, plan, progress).map(imported);
    }
    let staging = Staging::folder(out)?;
    progress.start(Phase::Convert, found.iter().map(ForeignSource::bytes).sum());
    let mut writer = ImportWriter::create(staging.path(), &plan)?;
    let mut counts = Vec::new();
    for source in &found {
        let mut progress_bytes = ByteProgress::new(progress);
        counts.push(writer.source(&source.name, |part| {
            tokens::read(source, part, tokenizer.num_ids(), &boundaries, options, &mut progress_bytes)
        })?);
    }
    let mut files = writer.finish()?;
    progress.finish();
    check_unchanged(input, &found, &plan, progress)?;
    files.push(copy_tokenizer(staging.path(), tokenizer)?);
    Manifest::commit(staging.path(), contents(plan, counts, files, &boundaries))?;
    staging.commit()?;
    Manifest::open(out).map(imported)
}

/// The files that were read are those that were hashed.
fn check_unchanged(
    input: &Path,
    found: &[ForeignSource],
    plan: &Plan,
    progress: &mut dyn Progress,
) -> Result<()> {
    for (now, planned) in inputs(input, found, progress)?.iter().zip(&plan.sources) {
        let changed = now.iter().zip(&planned.inputs).find(|(now, planned)| now.file != **planned);
        if let Some((input, _)) = changed {
            return Err(Error::InputChanged { path: input.path.clone() });
        }
    }
    Ok(())
}

/// The files of each source, hashed.
fn inputs(input: &Path, found: &[ForeignSource], progress: &mut dyn Progress) -> Result<Vec<Vec<InputFile>>> {
    let root = if input.is_dir() { input } else { input.parent().unwrap_or(Path::new("")) };
    let files =
        found.iter().map(|source| source.files(root)).collect::<Result<Vec<Vec<(PathBuf, String)>>>>()?;
    hash_all(files, progress)
}

/// The folder has a manifest: it is what was asked for, or it is refused.
fn finished(out: &Path, mut plan: Plan, progress: &mut dyn Progress) -> Result<Manifest> {
    let manifest = Manifest::open(out)?;
    // Shares follow from the inputs.
    for (source, earlier) in plan.sources.iter_mut().zip(&manifest.plan().sources) {
        source.proportion = earlier.proportion;
    }
    let changes = changes(manifest.plan(), &plan);
    if !changes.is_empty() {
        return Err(Error::Changed { path: out.to_owned(), changes });
    }
    progress.note(&Note::AlreadyBuilt);
    Ok(manifest)
}

/// The tokens around documents, as asked for or by default.
fn boundaries(format: Format, tokenizer: &Tokenizer, options: &ImportOptions) -> Result<BoundaryTokens> {
    let all_known = |boundaries: &BoundaryTokens| {
        let known = |token: &Option<(u32, String)>| {
            token.as_ref().is_none_or(|(id, _)| (*id as usize) < tokenizer.num_ids())
        };
        known(&boundaries.bos) && known(&boundaries.eos)
    };
    match &options.boundaries {
        Some(boundaries) if all_known(boundaries) => Ok(boundaries.clone()),
        Some(_) => {
            Err(conversion("eos", format!("the tokenizer has {} ids; name one of them", tokenizer.num_ids())))
        }
        None if format == Format::Megatron => Ok(BoundaryTokens::default()),
        None => match tokenizer.id_of(DEFAULT_EOS) {
            Some(id) => Ok(BoundaryTokens { bos: None, eos: Some((id, DEFAULT_EOS.into())) }),
            None => Err(conversion(
                "eos",
                format!(
                    "MDS does not keep where documents begin, and the tokenizer has no {DEFAULT_EOS}; name the token that ends a document, or the one that begins it, or that there is none"
                ),
            )),
        },
    }
}

fn conversion(option: &'static str, problem: String) -> Error {
    Error::Conversion { option, problem }
}

fn plan(
    input: &Path,
    found: &[ForeignSource],
    format: Format,
    tokenizer: &Tokenizer,
    boundaries: &BoundaryTokens,
    options: &ImportOptions,
    progress: &mut dyn Progress,
) -> Result<Plan> {
    let seq_len = match options.seq_len {
        Some(seq_len) => seq_len,
        None => sample_len(&found[0], options)?.unwrap_or(DEFAULT_ROW_TOKENS),
    };
    let row_tokens = if seq_len == 0 { 0 } else { default_row_tokens(seq_len) };
    if row_tokens == 0 || row_tokens > MAX_ROW_TOKENS {
        let problem = format!(
            "{seq_len} tokens cannot be a sample; expected 1 to {MAX_ROW_TOKENS}, or a multiple of {DEFAULT_ROW_TOKENS}"
        );
        return Err(conversion("seq-len", problem));
    }
    let inputs = inputs(input, found, progress)?;
    let is_mds = format == Format::Mds;
    let sources = found.iter().zip(inputs).map(|(source, inputs)| SourcePlan {
        name: source.name.clone(),
        // Known when the tokens are counted.
        proportion: Share::Proportion(0.0),
        format,
        text_field: if is_mds { options.column.clone() } else { String::new() },
        id_field: None,
        token_dtype: options.token_dtype.filter(|_| is_mds).map(|dtype| dtype.name().to_owned()),
        filters: Vec::new(),
        lists: Vec::new(),
        dedup: None,
        on_bad_line: OnBadLine::Fail,
        inputs: inputs.into_iter().map(|input| input.file).collect(),
    });
    let text = |token: &Option<(u32, String)>| token.as_ref().map_or(String::new(), |(_, text)| text.clone());
    Ok(Plan {
        format: FORMAT,
        seed: options.seed.unwrap_or(DEFAULT_SEED),
        seq_len,
        row_tokens,
        dedup: Dedup::none(),
        embedder: None,
        eval_fraction: 0.0,
        bos: text(&boundaries.bos),
        eos: text(&boundaries.eos),
        tokenizer: tokenizer.fingerprint().to_string(),
        vocab_size: tokenizer.num_ids(),
        mixing: Mixing::default(),
        sources: sources.collect(),
    })
}

/// Tokens in the samples of an MDS source, where the first two have as many.
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

fn copy_tokenizer(dir: &Path, tokenizer: &Tokenizer) -> Result<FileDigest> {
    let bytes = tokenizer.bytes();
    durable::write_file(&dir.join(TOKENIZER), bytes)?;
    Ok(FileDigest { name: TOKENIZER.into(), bytes: bytes.len() as u64, sha256: hash::sha256(bytes) })
}

fn contents(
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

/// What errors call the split that everything goes to.
fn split() -> &'static str {
    Split::Train.name()
}
