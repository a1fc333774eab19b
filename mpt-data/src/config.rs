//! `PrepareRun`: what a MIX.toml asks for, checked. After this boundary nobody checks again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dedup::{Dedup, DedupKind, DedupKinds};
use crate::error::{Error, Result};
use crate::filter::{Filter, check_local};
use crate::mixing::{Batching, Mixing, Quota, Sampling, Share, Shuffle, StageConfig};
use crate::runfile;

/// The longest row a shard can have, in tokens: a row group of 2048 rows is buffered in memory.
pub const MAX_ROW_TOKENS: usize = 16_384;
pub(crate) const DEFAULT_ROW_TOKENS: usize = 2048;
const DEFAULT_EVAL_FRACTION: f64 = 0.005;
pub(crate) const DEFAULT_SEED: u64 = 17;
/// Filters are told apart by the bits of one word.
const MAX_FILTERS: usize = 64;

/// One preparation: sources, their mix, and how their text becomes rows of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct PrepareRun {
    /// The run file; relative paths in it are relative to its folder.
    pub path: PathBuf,
    /// The folder to build in. The file does not say it: by default a folder beside it, named after it.
    pub out: PathBuf,
    /// The `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// Seed of the held-out split, and the default seed of the order.
    pub seed: u64,
    /// Tokens in a training sample, by default.
    pub seq_len: usize,
    /// Tokens in a row of the shards.
    pub row_tokens: usize,
    /// Which copies are dropped, and which parts of documents.
    pub dedup: Dedup,
    /// The share of the documents that is held out for evaluation.
    pub eval_fraction: f64,
    /// The token before each document; empty for none.
    pub bos: String,
    /// The token after each document; empty for none.
    pub eos: String,
    /// How samples are drawn and ordered, by default.
    pub mixing: Mixing,
    /// The sources, in the order that breaks ties between copies.
    pub sources: Vec<SourceConfig>,
}

/// One source of documents.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceConfig {
    /// Its name, also that of its folder.
    pub name: String,
    /// What it gets of the training samples.
    pub proportion: Share,
    /// Its tokens, where the mix says them: a plan then needs no data.
    pub tokens: Option<u64>,
    /// Files or glob patterns, relative to the run file's folder.
    pub paths: Vec<String>,
    /// What the files hold.
    pub format: Format,
    /// The field or column with the text.
    pub text_field: String,
    /// The field or column with the document's id. `None`: `id` where there is one, else file and line.
    pub id_field: Option<String>,
    /// What is kept, and what of it; a document must pass all, in this order.
    pub filters: Vec<Filter>,
    /// The stages of deduplication that it takes part in; `None` for all.
    pub dedup: Option<Vec<DedupKind>>,
    /// What happens where there should be a document and is none.
    pub on_bad_line: OnBadLine,
}

/// What happens to a line, row or text file that is no document: broken JSON or UTF-8, no text, too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadLine {
    /// The build fails and names it.
    #[default]
    Fail,
    /// It is left out, and listed in the ledger of drops.
    Skip,
}

/// What a source's files hold; compression is seen from the file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON Lines: an object per line.
    Jsonl,
    /// Parquet with a text column.
    Parquet,
    /// UTF-8 text, a document per file.
    Text,
    /// Tokens as MosaicML Streaming keeps them; for conversion alone.
    Mds,
    /// Tokens as Megatron keeps them; for conversion alone.
    Megatron,
}

impl SourceConfig {
    /// Whether it takes part in the stages of this kind, where there are any.
    pub(crate) fn takes_part(&self, kind: DedupKind) -> bool {
        self.dedup.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }
}

impl PrepareRun {
    /// Whether documents of a source go through a stage.
    pub(crate) fn goes_through(&self, source: usize, kind: DedupKind) -> bool {
        self.dedup.has(kind) && self.sources[source].takes_part(kind)
    }

    /// The folder that relative paths start from.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Reads and checks a MIX.toml.
    ///
    /// # Errors
    /// [`Error::MixFile`] when the file cannot be read; else as [`PrepareRun::parse`].
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path);
        Self::parse(&text.map_err(|source| Error::MixFile { path: path.to_owned(), source })?, path)
    }

    /// Checks the text of a MIX.toml that would lie at `origin`.
    ///
    /// # Errors
    /// As [`runfile::parse`]; [`Error::Config`] and [`Error::Unsupported`] name the key.
    pub fn parse(text: &str, origin: &Path) -> Result<Self> {
        check(runfile::parse(text, origin)?, origin)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRun {
    /// The `tokenizer.json`.
    tokenizer: String,
    /// Seed of the held-out split, and the default seed of the order of training.
    #[serde(default = "default_seed")]
    seed: u64,
    /// Tokens in a training sample, where a run does not say otherwise.
    seq_len: usize,
    /// Tokens in a row of the shards, 16384 at most: a divisor or a multiple of `seq_len`. By default 2048 where that
    /// divides `seq_len`, else `seq_len`.
    row_tokens: Option<usize>,
    /// Which copies are dropped, and which parts of documents.
    #[serde(default = "Dedup::exact")]
    dedup: Dedup,
    /// Share of the documents that is held out for evaluation, from 0 to 0.5.
    #[serde(default = "default_eval_fraction")]
    eval_fraction: f64,
    /// Token before each document; empty for none.
    #[serde(default)]
    bos: String,
    /// Token after each document; empty for none.
    #[serde(default = "default_eos")]
    eos: String,
    /// How the source of each sample is chosen.
    #[serde(default)]
    sampling: Sampling,
    /// What is the same in every group of samples.
    #[serde(default)]
    batching: Batching,
    /// Samples in a group. By default those of a batch when a run begins.
    batch_group: Option<u64>,
    /// How the samples of a source are ordered.
    #[serde(default)]
    shuffle: Shuffle,
    /// Chunks (row groups of 2048 rows) in a window of `"windowed"`. By default 16.
    shuffle_window: Option<u64>,
    /// Changes of shares or lengths on the way, in order.
    #[serde(default)]
    stages: Vec<StageConfig>,
    /// Sources of documents, in the order that breaks ties between copies.
    #[serde(default)]
    sources: Vec<RawSource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    /// Name of the source, and of its folder.
    name: String,
    /// Share of the samples; all of them sum to 1. One of `proportion`, `repeat` and `choose`, the first of them for all
    /// sources or none.
    proportion: Option<f64>,
    /// Factor on the samples of the source in a pass over the mix.
    repeat: Option<f64>,
    /// Samples that the source gives to a pass over the mix.
    choose: Option<u64>,
    /// Tokens of the source, where the mix says them: a plan then needs no data.
    tokens: Option<f64>,
    /// Files or glob patterns.
    paths: Vec<String>,
    /// What the files hold; compression is seen from the file name.
    format: Format,
    /// Field or column with the text. By default `"text"`.
    text_field: Option<String>,
    /// Field or column with the document's id. By default `id` where there is one, else file and line.
    id_field: Option<String>,
    /// Filters, in the order in which a document goes through them; it stays if it passes all.
    #[serde(default)]
    filters: Vec<Filter>,
    /// Stages of deduplication that the source takes part in. By default all.
    dedup: Option<DedupKinds>,
    /// What happens where there should be a document and is none.
    #[serde(default)]
    on_bad_line: OnBadLine,
}

fn default_seed() -> u64 {
    DEFAULT_SEED
}

fn default_eval_fraction() -> f64 {
    DEFAULT_EVAL_FRACTION
}

fn default_eos() -> String {
    "<|endoftext|>".to_owned()
}

/// Builds errors that name the run file and the key.
struct Check<'a> {
    path: &'a Path,
    place: String,
}

impl Check<'_> {
    fn config(&self, key: &str, actual: impl ToString, expected: impl Into<String>) -> Error {
        let (path, field) = (self.path.to_owned(), format!("{}{key}", self.place));
        Error::Config { path, field, expected: expected.into(), actual: actual.to_string() }
    }

    fn unsupported(&self, key: &str, actual: impl ToString, instead: &'static str) -> Error {
        let (path, field) = (self.path.to_owned(), format!("{}{key}", self.place));
        Error::Unsupported { path, field, actual: actual.to_string(), instead }
    }
}

fn check(raw: RawRun, path: &Path) -> Result<PrepareRun> {
    let at = Check { path, place: String::new() };
    let folder = path.parent().unwrap_or(Path::new(""));
    check_local("tokenizer", &raw.tokenizer)
        .map_err(|wrong| at.config(wrong.key, wrong.actual, wrong.expected))?;
    let row_tokens = row_tokens(&raw, &at)?;
    if !(0.0..=0.5).contains(&raw.eval_fraction) {
        return Err(at.config("eval_fraction", raw.eval_fraction, "a share from 0 to 0.5"));
    }
    let sources: Vec<_> =
        raw.sources.into_iter().map(|source| check_source(source, path)).collect::<Result<_>>()?;
    check_mix(&sources, &at)?;
    check_dedup(&raw.dedup, &sources, &at)?;
    let mixing = Mixing {
        sampling: raw.sampling,
        batching: raw.batching,
        batch_group: raw.batch_group,
        shuffle: raw.shuffle,
        shuffle_window: raw.shuffle_window,
        stages: raw.stages,
    };
    let names = sources.iter().map(|source| source.name.as_str());
    mixing.check(names).map_err(|wrong| at.config(wrong.key, wrong.actual, wrong.expected))?;
    Ok(PrepareRun {
        path: path.to_owned(),
        out: path.with_extension(""),
        tokenizer: folder.join(raw.tokenizer),
        seed: raw.seed,
        seq_len: raw.seq_len,
        row_tokens,
        dedup: raw.dedup,
        eval_fraction: raw.eval_fraction,
        bos: raw.bos,
        eos: raw.eos,
        mixing,
        sources,
    })
}

/// Tokens in a row for samples of so many.
pub(crate) fn default_row_tokens(seq_len: usize) -> usize {
    if seq_len.is_multiple_of(DEFAULT_ROW_TOKENS) { DEFAULT_ROW_TOKENS } else { seq_len }
}

fn row_tokens(raw: &RawRun, at: &Check<'_>) -> Result<usize> {
    if raw.seq_len == 0 {
        return Err(at.config("seq_len", 0, "1 or more"));
    }
    let row = raw.row_tokens.unwrap_or_else(|| default_row_tokens(raw.seq_len));
    if row == 0 || row > MAX_ROW_TOKENS {
        let expected =
            format!("from 1 to {MAX_ROW_TOKENS}; a longer `seq_len` is several rows, so set a divisor of it");
        return Err(at.config("row_tokens", row, expected));
    }
    if !raw.seq_len.is_multiple_of(row) && !row.is_multiple_of(raw.seq_len) {
        let expected = format!("a divisor or a multiple of `seq_len`, which is {}", raw.seq_len);
        return Err(at.config("row_tokens", row, expected));
    }
    Ok(row)
}

fn check_dedup(dedup: &Dedup, sources: &[SourceConfig], at: &Check<'_>) -> Result<()> {
    dedup.check().map_err(|(index, wrong)| {
        at.config(&format!("dedup[{index}].{}", wrong.key), wrong.actual, wrong.expected)
    })?;
    for source in sources {
        let unknown = |kind: &&DedupKind| !dedup.has(**kind);
        if let Some(kind) = source.dedup.iter().flatten().find(unknown) {
            let key = format!("sources.{}.dedup", source.name);
            return Err(at.config(
                &key,
                format!("\"{}\"", kind.name()),
                "stages that `dedup` of the run has",
            ));
        }
    }
    Ok(())
}

fn check_source(raw: RawSource, path: &Path) -> Result<SourceConfig> {
    let at = Check { path, place: format!("sources.{}.", raw.name) };
    check_name(&raw.name, &at)?;
    let proportion = check_share(&raw, &at)?;
    if raw.tokens.is_some_and(|tokens| !(1.0..1e18).contains(&tokens)) {
        return Err(at.config("tokens", raw.tokens.unwrap_or(0.0), "1 or more, and less than 1e18"));
    }
    check_fields(&raw, &at)?;
    if matches!(raw.format, Format::Mds | Format::Megatron) {
        let format = if raw.format == Format::Mds { "\"mds\"" } else { "\"megatron\"" };
        let instead = "its tokens need no building: `mpt data convert` makes a data folder of them";
        return Err(at.unsupported("format", format, instead));
    }
    if raw.paths.is_empty() {
        return Err(at.config("paths", "empty", "at least one file or glob pattern"));
    }
    for (index, filter) in raw.filters.iter().enumerate() {
        check_filter(filter, index, &at)?;
    }
    if raw.filters.len() > MAX_FILTERS {
        return Err(at.config("filters", raw.filters.len(), format!("{MAX_FILTERS} at most")));
    }
    raw.paths.iter().try_for_each(|pattern| check_pattern(pattern, &at))?;
    Ok(SourceConfig {
        name: raw.name,
        proportion,
        tokens: raw.tokens.map(|tokens| tokens as u64),
        paths: raw.paths,
        format: raw.format,
        text_field: raw.text_field.unwrap_or_else(|| "text".to_owned()),
        id_field: raw.id_field,
        filters: raw.filters,
        dedup: raw.dedup.and_then(|DedupKinds(kinds)| kinds),
        on_bad_line: raw.on_bad_line,
    })
}

fn check_filter(filter: &Filter, index: usize, at: &Check<'_>) -> Result<()> {
    filter.check().map_err(|wrong| {
        let dot = if wrong.key.is_empty() { "" } else { "." };
        at.config(&format!("filters[{index}]{dot}{}", wrong.key), wrong.actual, wrong.expected)
    })
}

/// What names of sources must be: they are folder names, on every file system.
pub(crate) const SOURCE_NAME: &str = "1 to 100 letters, digits, `-`, `_` and `.`, not starting with `.`";

/// Whether a source can have this name.
pub(crate) fn is_source_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(plain)
}

fn check_name(name: &str, at: &Check<'_>) -> Result<()> {
    if is_source_name(name) {
        return Ok(());
    }
    Err(at.config("name", format!("{name:?}"), SOURCE_NAME))
}

/// One of `proportion`, `repeat` and `choose`.
fn check_share(raw: &RawSource, at: &Check<'_>) -> Result<Share> {
    match (raw.proportion, raw.repeat, raw.choose) {
        (Some(share), None, None) if (1e-6..=1.0).contains(&share) => Ok(Share::Proportion(share)),
        (Some(share), None, None) => Err(at.config("proportion", share, "a share from 0.000001 to 1")),
        (None, Some(times), None) if times > 0.0 && times <= 1e6 => Ok(Share::Quota(Quota::Repeat(times))),
        (None, Some(times), None) => {
            Err(at.config("repeat", times, "how often the source is read in a pass, such as 2 or 0.5"))
        }
        (None, None, Some(samples)) if samples > 0 => Ok(Share::Quota(Quota::Choose(samples))),
        (None, None, Some(samples)) => {
            Err(at.config("choose", samples, "samples of the source in a pass, 1 or more"))
        }
        (None, None, None) => {
            let expected =
                "a share of the samples, such as 0.335; or `repeat = 1` for all that each source has";
            Err(at.config("proportion", "missing", expected))
        }
        (Some(share), _, _) => {
            let other = if raw.repeat.is_some() { "repeat" } else { "choose" };
            let expected =
                "no such key beside `proportion`: a source has one of `proportion`, `repeat` and `choose`";
            Err(at.config(other, format!("set beside `proportion` = {share}"), expected))
        }
        (None, Some(times), Some(_)) => {
            let expected =
                "no such key beside `repeat`: a source has one of `proportion`, `repeat` and `choose`";
            Err(at.config("choose", format!("set beside `repeat` = {times}"), expected))
        }
    }
}

/// A text file has no fields, so keys about fields cannot be honored.
fn check_fields(raw: &RawSource, at: &Check<'_>) -> Result<()> {
    if raw.format != Format::Text {
        return Ok(());
    }
    let given = [("text_field", raw.text_field.is_some()), ("id_field", raw.id_field.is_some())];
    if let Some((key, _)) = given.iter().find(|(_, given)| *given) {
        return Err(at.config(key, "set", "no such key with `format = \"text\"`: a text file has no fields"));
    }
    match raw.filters.iter().find_map(Filter::field) {
        Some(field) => Err(at.config(
            "filters",
            format!("a filter on the field `{field}`"),
            "filters on the text alone with `format = \"text\"`",
        )),
        None => Ok(()),
    }
}

fn check_pattern(pattern: &str, at: &Check<'_>) -> Result<()> {
    if pattern.contains("://") {
        if !cfg!(feature = "remote") {
            let instead =
                "build `mpt` with `--features remote`, or copy the files to this machine and name them here";
            return Err(at.unsupported("paths", format!("\"{pattern}\""), instead));
        }
        return crate::remote::check(pattern).map_err(|problem| {
            at.config("paths", format!("\"{pattern}\""), format!("an address that can be read: {problem}"))
        });
    }
    match glob::Pattern::new(pattern) {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(at.config("paths", format!("\"{pattern}\""), format!("a path or glob pattern ({error})")))
        }
    }
}

fn check_mix(sources: &[SourceConfig], at: &Check<'_>) -> Result<()> {
    if sources.is_empty() {
        return Err(at.config("sources", "empty", "at least one `[[sources]]` table"));
    }
    for (index, source) in sources.iter().enumerate() {
        if sources[..index].iter().any(|earlier| earlier.name.eq_ignore_ascii_case(&source.name)) {
            return Err(at.config(
                "sources",
                format!("two sources named `{}`", source.name),
                "a name of its own for each",
            ));
        }
    }
    let Some(proportions) = proportions(sources, at)? else { return Ok(()) };
    let sum: f64 = proportions.iter().sum();
    if (sum - 1.0).abs() > 1e-6 {
        let sum = format!("{:.6}", sum);
        let sum = sum.trim_end_matches('0').trim_end_matches('.');
        return Err(at.config(
            "proportion",
            format!("{sum} in sum over the {} sources", sources.len()),
            "shares that sum to 1",
        ));
    }
    Ok(())
}

/// The proportions, where the mix has them; they cannot stand beside quotas.
fn proportions(sources: &[SourceConfig], at: &Check<'_>) -> Result<Option<Vec<f64>>> {
    let shares = sources.iter().filter_map(|source| match source.proportion {
        Share::Proportion(share) => Some(share),
        Share::Quota(_) => None,
    });
    let shares: Vec<_> = shares.collect();
    if shares.is_empty() || shares.len() == sources.len() {
        return Ok((!shares.is_empty()).then_some(shares));
    }
    let quota = sources.iter().find_map(|source| match source.proportion {
        Share::Quota(Quota::Repeat(_)) => Some((&source.name, "repeat")),
        Share::Quota(Quota::Choose(_)) => Some((&source.name, "choose")),
        Share::Proportion(_) => None,
    });
    let (name, key) = quota.expect("a source has a quota");
    let expected = "`proportion` in all sources or in none: it cannot be mixed with `repeat` and `choose`";
    Err(at.config(&format!("sources.{name}.{key}"), "set where other sources have a `proportion`", expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "tokenizer = \"t.json\"\nseq_len = 2048\n";

    fn source(name: &str, proportion: f64) -> String {
        format!(
            "[[sources]]\nname = \"{name}\"\nproportion = {proportion}\npaths = [\"{name}/*.jsonl\"]\nformat = \"jsonl\"\n"
        )
    }

    fn parse(text: &str) -> Result<PrepareRun> {
        PrepareRun::parse(text, Path::new("in/mix.toml"))
    }

    fn message(text: &str) -> String {
        parse(text).expect_err("refused").to_string()
    }

    #[test]
    fn defaults_are_those_mpt_was_trained_with() {
        let run = parse(&format!("{HEAD}{}", source("web", 1.0))).expect("sound");
        assert_eq!((run.bos.as_str(), run.eos.as_str()), ("", "<|endoftext|>"));
        assert_eq!((run.dedup, run.row_tokens, run.seed), (Dedup::exact(), 2048, 17));
        assert_eq!(run.tokenizer, Path::new("in/t.json"));
        assert_eq!(run.sources[0].paths, ["web/*.jsonl"]);
        assert_eq!(run.sources[0].text_field, "text");
    }

    #[test]
    fn a_mix_file_that_is_not_there_is_named() {
        let error = PrepareRun::from_file(Path::new("no/such/mix.toml")).expect_err("absent").to_string();
        assert!(error.starts_with("no/such/mix.toml: the mix file cannot be read: "), "{error}");
    }

    #[test]
    fn rows_follow_from_the_sequence_length() {
        let rows = |seq_len: usize| {
            parse(&format!("tokenizer = \"t\"\nseq_len = {seq_len}\n{}", source("web", 1.0)))
                .map(|run| run.row_tokens)
        };
        assert_eq!(rows(8192).expect("sound"), 2048);
        assert_eq!(rows(256).expect("sound"), 256);
        assert_eq!(rows(3000).expect("sound"), 3000);
        assert!(rows(20_001).expect_err("too long").to_string().contains("`row_tokens` is 20001"));
        assert!(rows(0).expect_err("none").to_string().contains("`seq_len` is 0"));
        let text = message(&format!("{HEAD}row_tokens = 1000\n{}", source("web", 1.0)));
        assert!(
            text.contains("`row_tokens` is 1000, expected a divisor or a multiple of `seq_len`"),
            "{text}"
        );
    }

    #[test]
    fn proportions_must_sum_to_one() {
        let text = message(&format!("{HEAD}{}{}", source("web", 0.5), source("code", 0.4)));
        assert_eq!(
            text,
            "in/mix.toml: `proportion` is 0.9 in sum over the 2 sources, expected shares that sum to 1"
        );
        parse(&format!("{HEAD}{}{}", source("web", 0.3333333), source("code", 0.6666666)))
            .expect("near enough");
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let text = message(&format!("{HEAD}{}", source("web", 1.0).replace("web/*", "ftp://host/web")));
        assert!(text.contains("ftp://host/web"), "{text}");
    }

    #[test]
    #[cfg(not(feature = "remote"))]
    fn addresses_are_refused_with_what_reads_them() {
        let text = message(&format!("{HEAD}{}", source("web", 1.0).replace("web/*", "s3://bucket/web")));
        let advice = "not supported yet; build `mpt` with `--features remote`, or copy the files";
        assert!(text.contains("s3://bucket/web") && text.contains(advice), "{text}");
        let error = crate::Manifest::open(Path::new("s3://bucket/data")).expect_err("refused").to_string();
        assert!(error.starts_with("s3://bucket/data/manifest.json: this `mpt` was built without"), "{error}");
        assert!(error.contains("cargo build --release -p mpt-cli --features remote"), "{error}");
    }

    #[test]
    fn files_that_are_no_documents_must_be_local() {
        let here = "expected a file on this machine; copy it beside the mix file, and name the copy here";
        let text = message(&format!("{HEAD}{}", source("web", 1.0)).replace("t.json", "https://h/t.json"));
        assert_eq!(text, format!("in/mix.toml: `tokenizer` is \"https://h/t.json\", {here}"));
        let semdedup = "dedup = { kind = \"semdedup\", model = \"s3://b/m\", keep = 0.5 }";
        let text = message(&format!("{HEAD}{semdedup}\n{}", source("web", 1.0)));
        assert_eq!(text, format!("in/mix.toml: `dedup[1].model` is \"s3://b/m\", {here}"));
        for (kind, key, value, named) in [
            ("url_list", "path", "\"s3://b/l\"", "s3://b/l"),
            ("word_list", "path", "\"gs://b/l\"", "gs://b/l"),
            ("c4", "bad_words", "\"az://b/l\"", "az://b/l"),
            ("decontaminate", "paths", "[\"near.txt\", \"https://h/far.txt\"]", "https://h/far.txt"),
        ] {
            let filter = format!("filters = [{{ kind = \"{kind}\", {key} = {value} }}]\n");
            let text = message(&format!("{HEAD}{}{filter}", source("web", 1.0)));
            assert_eq!(
                text,
                format!("in/mix.toml: `sources.web.filters[0].{key}` is \"{named}\", {here}"),
                "{kind}"
            );
        }
    }

    #[test]
    fn deduplication_is_a_name_a_table_or_a_list() {
        let with = |dedup: &str| format!("{HEAD}dedup = {dedup}\n{}", source("web", 1.0));
        let kinds = |dedup: &str| -> Vec<&str> {
            let run = parse(&with(dedup)).unwrap_or_else(|error| panic!("{error}"));
            run.dedup.stages().iter().map(|stage| stage.kind().name()).collect()
        };
        assert_eq!(kinds("\"none\""), [""; 0]);
        assert_eq!(kinds("\"exact\""), ["exact"]);
        assert_eq!(kinds("\"minhash\""), ["exact", "minhash"]);
        assert_eq!(kinds("{ kind = \"paragraph\", min_words = 3 }"), ["exact", "paragraph"]);
        let all = "[\"paragraph\", { kind = \"minhash\", bands = 20 }, { kind = \"semdedup\", model = \"m\", keep = 0.5 }]";
        assert_eq!(kinds(all), ["exact", "paragraph", "minhash", "semdedup"]);
        let run = parse(&with(all)).expect("sound");
        let again: Dedup =
            serde_json::from_str(&serde_json::to_string(&run.dedup).expect("written")).expect("read");
        assert_eq!(again, run.dedup);
        assert_eq!(serde_json::to_string(&Dedup::exact()).expect("written"), "\"exact\"");
    }

    #[test]
    fn wrong_deduplication_is_named() {
        let with = |dedup: &str| message(&format!("{HEAD}dedup = {dedup}\n{}", source("web", 1.0)));
        for (dedup, found) in [
            ("\"minhsh\"", ":3: unknown value `minhsh`, did you mean `minhash`?"),
            ("[{ kind = \"minhash\", row = 3 }]", ":3: unknown key `row`, did you mean `rows`?"),
            ("{ kind = \"exact\", seed = 3 }", ":3: unknown key `seed`"),
            ("\"semdedup\"", "\"semdedup\" needs a model"),
            ("[\"minhash\", \"paragraph\"]", "`dedup[2].kind` is \"paragraph\" after \"minhash\""),
            ("[\"none\"]", "\"none\" is no stage of a list"),
            ("{ kind = \"minhash\", threshold = 1.5 }", "`dedup[1].threshold` is 1.5, expected a share"),
            (
                "{ kind = \"minhash\", bands = 100, rows = 11 }",
                "`dedup[1].rows` is 11, expected from 1 to 10",
            ),
            ("3", ":3: `dedup`: invalid type: integer `3`, expected the name of a stage"),
        ] {
            let text = with(dedup);
            assert!(text.contains(found), "{dedup}: {text}");
        }
    }

    #[test]
    fn sources_may_take_no_part_in_deduplication() {
        let with = |dedup: &str| {
            parse(&format!("{HEAD}dedup = \"minhash\"\n{}dedup = {dedup}\n", source("web", 1.0)))
        };
        let parts = |dedup: &str| {
            let run = with(dedup).expect("sound");
            [DedupKind::Exact, DedupKind::Paragraph, DedupKind::MinHash].map(|kind| run.goes_through(0, kind))
        };
        assert_eq!(parts("true"), [true, false, true]);
        assert_eq!(parts("false"), [false; 3]);
        assert_eq!(parts("[\"exact\"]"), [true, false, false]);
        let text = with("[\"paragraph\"]").expect_err("refused").to_string();
        assert!(text.contains("`sources.web.dedup` is \"paragraph\", expected stages that"), "{text}");
    }

    #[test]
    fn a_source_has_one_kind_of_share_and_so_have_all() {
        let quota = |name: &str, line: &str| source(name, 0.5).replace("proportion = 0.5", line);
        let run = parse(&format!("{HEAD}{}{}", quota("web", "repeat = 0.5"), quota("code", "choose = 100")));
        let shares: Vec<_> = run.expect("sound").sources.iter().map(|source| source.proportion).collect();
        assert_eq!(shares, [Share::Quota(Quota::Repeat(0.5)), Share::Quota(Quota::Choose(100))]);
        let text = message(&format!("{HEAD}{}{}", source("web", 0.5), quota("code", "repeat = 2")));
        assert!(
            text.contains("`sources.code.repeat` is set where other sources have a `proportion`, expected `proportion` in all"),
            "{text}"
        );
        let with = |line: &str| message(&format!("{HEAD}{}{line}\n", source("web", 1.0)));
        assert!(with("repeat = 2").contains("`sources.web.repeat` is set beside `proportion` = 1"));
        assert!(with("choose = 2").contains("`sources.web.choose` is set beside `proportion` = 1"));
        let alone = |line: &str| message(&format!("{HEAD}{}", quota("web", line)));
        assert!(alone("repeat = 0").contains("`sources.web.repeat` is 0, expected how often"));
        assert!(alone("choose = 0").contains("`sources.web.choose` is 0, expected samples"));
        assert!(alone("").contains("`sources.web.proportion` is missing"));
        assert!(alone("repeat = 1\nchoose = 3").contains("`sources.web.choose` is set beside `repeat` = 1"));
    }

    #[test]
    fn how_samples_are_drawn_is_checked() {
        let with = |lines: &str| format!("{HEAD}{lines}\n{}", source("web", 1.0));
        let run = parse(&with("batching = \"per_source\"\nbatch_group = 8\nshuffle = \"windowed\""))
            .expect("sound");
        assert_eq!(
            (run.mixing.batching, run.mixing.batch_group, run.mixing.window()),
            (Batching::PerSource, Some(8), 16)
        );
        let text = message(&with("sampling = \"iid\"\nbatching = \"stratified\""));
        assert!(text.starts_with("in/mix.toml: `sampling` is \"iid\", expected \"exact\" with"), "{text}");
        let text = message(&with("sampling = \"idd\""));
        assert!(text.contains(":3: unknown value `idd`, did you mean `iid`?"), "{text}");
    }

    #[test]
    fn wrong_keys_and_kinds_are_named() {
        let text = message(&format!("{HEAD}{}propotion = 1\n", source("web", 1.0)));
        assert!(
            text.starts_with("in/mix.toml:8: unknown key `propotion`, did you mean `proportion`?"),
            "{text}"
        );
        let text = message(&format!(
            "{HEAD}{}filters = [{{ kind = \"min_word\", value = 3 }}]\n",
            source("web", 1.0)
        ));
        assert!(text.contains(":8: unknown value `min_word`, did you mean `min_words`?"), "{text}");
        let text = message(&format!("{HEAD}{}", source("web", 1.0).replace("\"jsonl\"", "\"json\"")));
        assert!(text.contains("unknown value `json`, did you mean `jsonl`?"), "{text}");
        let text = message(&format!("{HEAD}{}", source("../up", 1.0)));
        assert!(text.contains("`sources.../up.name` is \"../up\""), "{text}");
        let text = message(&format!("{HEAD}{}{}", source("web", 0.5), source("Web", 0.5)));
        assert!(text.contains("two sources named `Web`"), "{text}");
        assert!(message(HEAD).contains("`sources` is empty"));
    }

    #[test]
    fn text_files_have_no_fields() {
        let text = source("web", 1.0).replace("\"jsonl\"", "\"text\"");
        let found = message(&format!("{HEAD}{text}text_field = \"body\"\n"));
        assert!(found.contains("`sources.web.text_field` is set"), "{found}");
        let filter = "filters = [{ kind = \"column\", field = \"lang\", any_of = [\"en\"] }]\n";
        let found = message(&format!("{HEAD}{text}{filter}"));
        assert!(found.contains("a filter on the field `lang`"), "{found}");
        let filter = "filters = [{ kind = \"url_list\", path = \"list.txt\" }]\n";
        let found = message(&format!("{HEAD}{text}{filter}"));
        assert!(found.contains("a filter on the field `url`"), "{found}");
    }

    #[test]
    fn filters_have_defaults_and_refuse_what_makes_no_sense() {
        let with = |filter: &str| format!("{HEAD}{}filters = [{filter}]\n", source("web", 1.0));
        let run =
            parse(&with("{ kind = \"gopher_quality\" }, { kind = \"gopher_quality\", min_words = 30 }"));
        let filters = &run.expect("sound").sources[0].filters;
        let words = |filter: &Filter| match filter {
            Filter::GopherQuality(rules) => rules.min_words,
            other => panic!("{other:?}"),
        };
        assert_eq!(filters.iter().map(words).collect::<Vec<_>>(), [50, 30]);
        let text = message(&with("{ kind = \"gopher_quality\", min_word = 30 }"));
        assert!(text.contains(":8: unknown key `min_word`, did you mean `min_words`?"), "{text}");
        let text =
            message(&with("{ kind = \"c4\" }, { kind = \"gopher_repetition\", max_top_2_gram = nan }"));
        assert!(
            text.contains("`sources.web.filters[1].max_top_2_gram` is NaN, expected a share from 0 to 1"),
            "{text}"
        );
        let text = message(&with("{ kind = \"language\", any_of = [\"english\"] }"));
        assert!(text.contains("`sources.web.filters[0].any_of` is \"english\", expected one of "), "{text}");
    }
}
