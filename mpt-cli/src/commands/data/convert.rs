//! `mpt data convert`: data folders to MDS or Megatron files, and back.

use std::path::PathBuf;

use mpt_data::interop::mds::{Codec, HashAlgorithm, MdsOptions};
use mpt_data::interop::{
    BoundaryTokens, Dtype, ExportFormat, ExportOptions, ExportSummary, ExportedSource, ImportOptions,
    ImportSummary, export, import, rewrite,
};
use mpt_data::{Format, Manifest, Split, inspect};
use mpt_tokenize::Tokenizer;
use serde_json::json;

use super::{MIX_HEADER, PrepareProgress, mix_rows};
use crate::byte_size::ByteSize;
use crate::exit::CliError;
use crate::output::path_text;
use crate::settings::Context;
use crate::table;

/// Arguments of `mpt data convert`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt data convert data data-mds --to mds --compression zstd:7 --hash sha1
  mpt data convert mds data --to parquet --tokenizer tokenizer.json --eos '<|endoftext|>'
  mpt data convert c4_text_document.idx data --to parquet --tokenizer tokenizer.json
  mpt data convert data data-megatron --to megatron")]
pub(super) struct Args {
    /// A folder made by `mpt data build`, an MDS dataset, a Megatron `.idx`, or a folder of such
    input: PathBuf,
    /// The folder to make
    output: PathBuf,
    /// What to write; `parquet` is what `mpt data build` makes
    #[arg(long, value_name = "FORMAT")]
    to: OutputFormat,
    /// The tokenizer that the tokens are of [to parquet]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// The MDS column with the tokens [to parquet; default: tokens]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Type of the tokens: of an MDS column of `bytes`, or to write [default: the narrowest that holds the vocabulary]
    #[arg(long, value_name = "TYPE", value_parser = parse_dtype)]
    token_dtype: Option<Dtype>,
    /// The token that ends each document, as text or id, or `none` [from MDS; default: <|endoftext|>]
    #[arg(long, value_name = "TOKEN")]
    eos: Option<String>,
    /// The token that begins each document, as text or id, or `none`
    #[arg(long, value_name = "TOKEN")]
    bos: Option<String>,
    /// Tokens in a sample [default: that of the input, else 2048]
    #[arg(long, value_name = "L")]
    seq_len: Option<usize>,
    /// Compression of MDS shards: br, bz2, gz, snappy or zstd, a level after a colon [to mds]
    #[arg(long, value_name = "CODEC")]
    compression: Option<Codec>,
    /// A hash to keep in the MDS index; may be given several times [to mds]
    #[arg(long, value_name = "NAME", value_parser = parse_hash)]
    hash: Vec<HashAlgorithm>,
    /// Begin another MDS shard beyond this size [to mds; default: 64 MiB]
    #[arg(long, value_name = "SIZE")]
    size_limit: Option<ByteSize>,
    /// Do not check the hashes that an MDS index gives [from MDS]
    #[arg(long)]
    no_verify: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OutputFormat {
    Parquet,
    Mds,
    Megatron,
}

fn parse_dtype(name: &str) -> Result<Dtype, String> {
    let found = Dtype::from_name(name).filter(|dtype| dtype.is_integer());
    let known_names = || Dtype::ALL.into_iter().filter(|dtype| dtype.is_integer()).map(Dtype::name);
    found.ok_or_else(|| format!("expected one of {}", known_names().collect::<Vec<_>>().join(", ")))
}

fn parse_hash(name: &str) -> Result<HashAlgorithm, String> {
    let known_names = || HashAlgorithm::all().map(HashAlgorithm::name).collect::<Vec<_>>().join(", ");
    HashAlgorithm::from_name(name).ok_or_else(|| format!("expected one of {}", known_names()))
}

/// Chooses the conversion by the content of the input and the requested format.
pub(super) fn run(args: &Args, ctx: &mut Context) -> Result<(), CliError> {
    let is_our_data = args.input.join("manifest.json").is_file();
    match (is_our_data, args.to) {
        (true, OutputFormat::Parquet) => {
            let input = args.input.display();
            Err(CliError::usage(format!("{input}: is a data folder of Parquet shards already"))
                .help("name another format with --to"))
        }
        (true, _) => export_data(args, ctx),
        (false, OutputFormat::Parquet) => import_data(args, ctx),
        (false, OutputFormat::Mds) if args.input.join("index.json").is_file() => rewrite_mds(args, ctx),
        (false, _) => {
            let input = args.input.display();
            Err(CliError::usage(format!(
                "{input}: is no folder made by `mpt data build`, and no MDS dataset to write again"
            ))
            .help("convert it --to parquet first, then from there"))
        }
    }
}

impl Args {
    /// Refuses flags that do not apply to the conversion `what`.
    fn expect_only(&self, what: &str, allowed: &[&str]) -> Result<(), CliError> {
        let given = [
            ("--tokenizer", self.tokenizer.is_some()),
            ("--column", self.column.is_some()),
            ("--token-dtype", self.token_dtype.is_some()),
            ("--eos", self.eos.is_some()),
            ("--bos", self.bos.is_some()),
            ("--seq-len", self.seq_len.is_some()),
            ("--compression", self.compression.is_some()),
            ("--hash", !self.hash.is_empty()),
            ("--size-limit", self.size_limit.is_some()),
            ("--no-verify", self.no_verify),
        ];
        match given.iter().find(|(name, given)| *given && !allowed.contains(name)) {
            Some((name, _)) => {
                Err(CliError::usage(format!("{name} has no meaning {what}")).help("leave it out"))
            }
            None => Ok(()),
        }
    }

    fn mds_options(&self) -> MdsOptions {
        let default = MdsOptions::default();
        let size_limit = self.size_limit.map_or(default.size_limit, |size| Some(size.0));
        MdsOptions { codec: self.compression, hashes: self.hash.clone(), size_limit }
    }
}

fn export_data(args: &Args, ctx: &mut Context) -> Result<(), CliError> {
    let is_mds = args.to == OutputFormat::Mds;
    let (what, allowed): (_, &[_]) = if is_mds {
        ("from our data to MDS", &["--token-dtype", "--seq-len", "--compression", "--hash", "--size-limit"])
    } else {
        ("from our data to Megatron", &["--token-dtype"])
    };
    args.expect_only(what, allowed)?;
    let data = Manifest::open(&args.input)?;
    let target = match is_mds {
        true => ExportFormat::Mds { options: args.mds_options(), seq_len: args.seq_len },
        false => ExportFormat::Megatron,
    };
    let options = ExportOptions { target, token_dtype: args.token_dtype };
    let exported = export(&data, &args.output, &options, &mut PrepareProgress::new(ctx))?;
    print_export(args, &exported, ctx)?;
    ctx.out.json(&json!({
        "dir": path_text(&args.output), "token_dtype": exported.token_dtype.name(), "sources": exported.sources,
    }))
}

/// Prints the table of sources, and a line on the format and what it does not hold.
fn print_export(args: &Args, exported: &ExportSummary, ctx: &mut Context) -> Result<(), CliError> {
    let is_mds = args.to == OutputFormat::Mds;
    let header = ["source", if is_mds { "samples" } else { "documents" }, "tokens", "left out"];
    let row = |source: &ExportedSource| {
        let numbers = [source.samples, source.tokens, source.left_out].map(table::count);
        [vec![source.name.clone()], numbers.to_vec()].concat()
    };
    ctx.out.table(&header, &exported.sources.iter().map(row).collect::<Vec<_>>())?;
    let (out, dtype) = (args.output.display(), exported.token_dtype.name());
    let (format, lost) = if is_mds {
        (format!("column `tokens`, ndarray:{dtype}"), ", nor is where documents begin: MDS does not keep it")
    } else {
        (format!("a sequence per document, {dtype}"), "")
    };
    ctx.out.text(format_args!("\n{out}: {format}; the held-out documents are not in it{lost}"))
}

fn rewrite_mds(args: &Args, ctx: &mut Context) -> Result<(), CliError> {
    args.expect_only("from MDS to MDS", &["--compression", "--hash", "--size-limit", "--no-verify"])?;
    let samples = rewrite(
        &args.input,
        &args.output,
        &args.mds_options(),
        !args.no_verify,
        &mut PrepareProgress::new(ctx),
    )?;
    ctx.out.text(format_args!("{}: {} samples", args.output.display(), table::count(samples)))?;
    ctx.out.json(&json!({ "dir": path_text(&args.output), "samples": samples }))
}

fn import_data(args: &Args, ctx: &mut Context) -> Result<(), CliError> {
    let allowed = ["--tokenizer", "--column", "--token-dtype", "--eos", "--bos", "--seq-len", "--no-verify"];
    args.expect_only("to Parquet", &allowed)?;
    let Some(tokenizer) = &args.tokenizer else {
        return Err(CliError::usage("--tokenizer is missing: the input does not say what its tokens mean")
            .help("name the tokenizer.json that made them"));
    };
    let tokenizer = Tokenizer::from_file(tokenizer)?;
    let default = ImportOptions::default();
    let options = ImportOptions {
        column: args.column.clone().unwrap_or(default.column),
        token_dtype: args.token_dtype,
        boundaries: parse_boundaries(args, &tokenizer)?,
        seq_len: args.seq_len,
        seed: ctx.seed,
        verify: !args.no_verify,
    };
    let imported = import(&args.input, &args.output, &tokenizer, &options, &mut PrepareProgress::new(ctx))?;
    let mix = inspect(&imported.manifest, None)?;
    ctx.out.table(&MIX_HEADER, &mix_rows(&mix))?;
    let (document_starts, description) = document_starts(&imported);
    let (out, root) = (args.output.display(), imported.manifest.root());
    ctx.out.text(format_args!("\n{out}: manifest {}; {description}; nothing is held out", &root[..16]))?;
    ctx.out.json(&json!({
        "dir": path_text(&args.output), "manifest": root, "train_tokens": imported.manifest.tokens(Split::Train),
        "document_starts": document_starts, "sources": mix.sources,
    }))
}

/// Document boundary tokens of `--bos` and `--eos`; `None` if neither is given.
fn parse_boundaries(args: &Args, tokenizer: &Tokenizer) -> Result<Option<BoundaryTokens>, CliError> {
    if args.eos.is_none() && args.bos.is_none() {
        return Ok(None);
    }
    let bos = parse_token("--bos", args.bos.as_deref(), tokenizer)?;
    Ok(Some(BoundaryTokens { bos, eos: parse_token("--eos", args.eos.as_deref(), tokenizer)? }))
}

/// Resolves a token by its text or id.
fn parse_token(
    flag: &str,
    text: Option<&str>,
    tokenizer: &Tokenizer,
) -> Result<Option<(u32, String)>, CliError> {
    let Some(text) = text.filter(|text| *text != "none") else { return Ok(None) };
    let as_id = || text.parse().ok().filter(|&id| (id as usize) < tokenizer.num_ids());
    // A number is an id, even if the vocabulary has a token of that text.
    let id = as_id().or_else(|| tokenizer.token_to_id(text)).ok_or_else(|| {
        let ids = tokenizer.num_ids();
        CliError::usage(format!("{flag} {text}: the tokenizer has no such token, and {ids} ids"))
            .help("name one of its special tokens, an id, or `none`")
    })?;
    let bytes = tokenizer.token_bytes(id)?;
    Ok(Some((id, String::from_utf8_lossy(bytes).into_owned())))
}

/// Origin of the document starts: its name in JSON, and a sentence.
fn document_starts(imported: &ImportSummary) -> (&'static str, String) {
    if imported.format == Format::Megatron {
        return ("index", "documents begin where the index says".into());
    }
    let named = |what: &str, token: &Option<(u32, String)>| {
        token.as_ref().map(|(id, text)| format!("{what} {text} (id {id})"))
    };
    let tokens = [named("at each", &imported.boundaries.bos), named("after each", &imported.boundaries.eos)];
    let tokens: Vec<_> = tokens.into_iter().flatten().collect();
    match tokens.is_empty() {
        true => ("sample", "MDS does not keep where documents begin: each sample is taken as one".into()),
        false => {
            let description = tokens.join(" and ");
            (
                "token",
                format!("MDS does not keep where documents begin: they are taken to begin {description}"),
            )
        }
    }
}
