//! Import of another program's tokens to a data folder that `verify`, `inspect`, `cat` and training take.

mod boundaries;
mod plan;
mod tokens;
mod writer;

use std::path::Path;

use mpt_tokenize::Tokenizer;

pub use self::boundaries::BoundaryTokens;
use self::boundaries::boundaries;
use self::plan::{ImportRequest, contents};
use self::writer::ImportWriter;
use super::byte_progress::ByteProgress;
use super::dtype::Dtype;
use super::sources::{self, ForeignData, ForeignSource};
use crate::config::Format;
use crate::durable::{self, Staging};
use crate::error::{Error, Result};
use crate::file_digest::FileDigest;
use crate::hash;
use crate::manifest::{MANIFEST, Manifest, Plan, Split, TOKENIZER};
use crate::prepare::changes;
use crate::progress::{Note, Phase, Progress};

/// Settings of an import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Column with the tokens, in MDS.
    pub column: String,
    /// Type of the tokens, where their column is `bytes`, which has no type.
    pub token_dtype: Option<Dtype>,
    /// Tokens around documents; by default `<|endoftext|>` after each in MDS, and none in Megatron data.
    pub boundaries: Option<BoundaryTokens>,
    /// Tokens in a training sample; by default those of an MDS sample.
    pub seq_len: Option<usize>,
    /// Default seed of the order; 17 by default.
    pub seed: Option<u64>,
    /// Whether the hashes of an MDS index are checked.
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

/// Summary of an import.
#[derive(Debug, Clone)]
pub struct ImportSummary {
    /// Manifest of the data folder.
    pub manifest: Manifest,
    /// Format of the input.
    pub format: Format,
    /// Tokens around documents.
    pub boundaries: BoundaryTokens,
}

/// Makes the data folder `out` of the data at `input`: a source per subfolder, or one named after the folder. The share of a
/// source is its share of the tokens. Nothing is held out.
///
/// A Megatron index gives the document starts. MDS has none: a document ends after each EOS and begins at each BOS, and
/// without either every sample is a document.
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
    let request = ImportRequest { input, sources: &found, format, boundaries: &boundaries, options };
    let plan = request.plan(tokenizer, progress)?;
    let imported = |manifest| ImportSummary { manifest, format, boundaries: boundaries.clone() };
    if out.join(MANIFEST).exists() {
        return finished(out, plan, progress).map(imported);
    }
    let staging = Staging::folder(out)?;
    progress.start(Phase::Convert, found.iter().map(ForeignSource::bytes).sum());
    let mut writer = ImportWriter::create(staging.path(), &plan)?;
    let mut counts = Vec::new();
    for source in &found {
        let mut bytes_done = ByteProgress::new(progress);
        counts.push(writer.source(&source.name, |part| {
            tokens::read(source, part, tokenizer.num_ids(), &boundaries, options, &mut bytes_done)
        })?);
    }
    let mut files = writer.finish()?;
    progress.finish();
    request.check_unchanged(&plan, progress)?;
    files.push(copy_tokenizer(staging.path(), tokenizer)?);
    Manifest::commit(staging.path(), contents(plan, counts, files, &boundaries))?;
    staging.commit()?;
    Manifest::open(out).map(imported)
}

/// Manifest of a complete folder, which is refused where it is of another plan.
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

fn conversion(option: &'static str, problem: String) -> Error {
    Error::Conversion { option, problem }
}

fn copy_tokenizer(dir: &Path, tokenizer: &Tokenizer) -> Result<FileDigest> {
    let bytes = tokenizer.json_bytes();
    durable::write_file(&dir.join(TOKENIZER), bytes)?;
    Ok(FileDigest { name: TOKENIZER.into(), bytes: bytes.len() as u64, sha256: hash::sha256(bytes) })
}

/// Name of the split that everything is in.
fn split() -> &'static str {
    Split::Train.name()
}
