//! `PrepareRun`: a MIX.toml, checked. After this boundary nobody checks again.

mod check;
mod check_source;
mod key_errors;
mod raw;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

#[cfg(feature = "interop")]
pub(crate) use self::check::default_row_tokens;
pub(crate) use self::check_source::{SOURCE_NAME, is_source_name};
use crate::dedup::{Dedup, DedupKind};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::mixing::{Mixing, Share};
use crate::runfile;

/// Longest row of a shard, in tokens: a row group of 2048 rows is buffered in memory.
pub const MAX_ROW_TOKENS: usize = 16_384;
pub(crate) const DEFAULT_ROW_TOKENS: usize = 2048;
pub(crate) const DEFAULT_SEED: u64 = 17;

/// Settings of a preparation: sources, their mix, and the way from text to rows of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct PrepareRun {
    /// Run file, to whose folder the paths in it are relative.
    pub path: PathBuf,
    /// Output folder; by default a folder beside the run file, named after it.
    pub out: PathBuf,
    /// Path of the `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// Seed of the held-out split, and the default seed of the order.
    pub seed: u64,
    /// Tokens in a training sample, by default.
    pub seq_len: usize,
    /// Tokens in a row of the shards.
    pub row_tokens: usize,
    /// Stages of deduplication.
    pub dedup: Dedup,
    /// Share of the documents that is held out for evaluation.
    pub eval_fraction: f64,
    /// Token before each document; empty for none.
    pub bos: String,
    /// Token after each document; empty for none.
    pub eos: String,
    /// Default sampling, batching, shuffle and stages.
    pub mixing: Mixing,
    /// Sources, in the order that breaks ties between copies.
    pub sources: Vec<SourceConfig>,
}

/// Source of documents.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceConfig {
    /// Name of the source and of its folder.
    pub name: String,
    /// Share of the training samples.
    pub proportion: Share,
    /// Declared tokens, with which a plan needs no data.
    pub tokens: Option<u64>,
    /// Files or glob patterns, relative to the run file's folder.
    pub paths: Vec<String>,
    /// Format of the files.
    pub format: Format,
    /// Field or column with the text.
    pub text_field: String,
    /// Field or column with the document's id; by default `id` where there is one, else file and line.
    pub id_field: Option<String>,
    /// Filters, in order; a document must pass all.
    pub filters: Vec<Filter>,
    /// Stages of deduplication that the source takes part in; `None` for all.
    pub dedup: Option<Vec<DedupKind>>,
    /// Action for a line that is no document.
    pub on_bad_line: OnBadLine,
}

/// Action for a line, row or text file that is no document: broken JSON or UTF-8, no text, too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadLine {
    /// The build fails and names it.
    #[default]
    Fail,
    /// It is skipped, and listed in the ledger of drops.
    Skip,
}

/// Format of a source's files; the file name tells the compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON Lines: an object per line.
    Jsonl,
    /// Parquet with a text column.
    Parquet,
    /// UTF-8 text, a document per file.
    Text,
    /// MosaicML Streaming's MDS with tokens; for conversion alone.
    Mds,
    /// Megatron's indexed dataset of tokens; for conversion alone.
    Megatron,
}

impl SourceConfig {
    /// Whether the source takes part in stages of this kind.
    pub(crate) fn takes_part(&self, kind: DedupKind) -> bool {
        self.dedup.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }
}

impl PrepareRun {
    /// Whether documents of a source go through a stage.
    pub(crate) fn goes_through(&self, source: usize, kind: DedupKind) -> bool {
        self.dedup.has(kind) && self.sources[source].takes_part(kind)
    }

    /// Folder of the run file.
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
        check::check(runfile::parse(text, origin)?, origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixing::{Batching, Quota};

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
        let advice = "without the feature `remote`; build it with that, or copy the files";
        assert!(text.contains("s3://bucket/web") && text.contains(advice), "{text}");
        let error = crate::Manifest::open(Path::new("s3://bucket/data")).expect_err("refused").to_string();
        assert!(error.starts_with("s3://bucket/data/manifest.json: this build is without"), "{error}");
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
