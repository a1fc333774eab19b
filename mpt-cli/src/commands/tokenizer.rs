//! `mpt tokenizer`: train, encode, decode.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use mpt_data::durable;
use mpt_tokenize::{Tokenizer, TrainConfig, train};
use serde_json::{Value, json};

use crate::exit::{CliError, ExitStatus};
use crate::settings::Context;

/// Train a tokenizer, encode text, decode ids
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Train a byte-level BPE in the GPT-NeoX style on text files
    #[command(
        after_help = "Examples:\n  mpt tokenizer train corpus/*.txt --vocab-size 32000 --out tokenizer.json"
    )]
    Train {
        /// UTF-8 text files; with the extension .jsonl, the field `text` of each line
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Tokens in all, special ones included
        #[arg(long, value_name = "N")]
        vocab_size: usize,
        /// A pair of tokens must occur this often to become one
        #[arg(long, value_name = "N", default_value_t = 2)]
        min_frequency: u64,
        /// The tokenizer.json to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print the ids of a text, or of the `text` of each line of a JSONL file
    #[command(
        after_help = "Examples:\n  mpt tokenizer encode --tokenizer tokenizer.json \"Hello\"\n  mpt tokenizer encode --tokenizer tokenizer.json --jsonl texts.jsonl > ids.jsonl"
    )]
    Encode {
        /// The tokenizer.json
        #[arg(long, value_name = "FILE")]
        tokenizer: PathBuf,
        /// Lines `{"text": …}`; `-` reads standard input
        #[arg(long, value_name = "FILE", conflicts_with = "text", required_unless_present = "text")]
        jsonl: Option<PathBuf>,
        /// The text
        text: Option<String>,
    },
    /// Print the text of ids
    #[command(
        after_help = "Examples:\n  mpt tokenizer decode --tokenizer tokenizer.json --ids 12092,13,1533"
    )]
    Decode {
        /// The tokenizer.json
        #[arg(long, value_name = "FILE")]
        tokenizer: PathBuf,
        /// Token ids
        #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
        ids: Vec<u32>,
    },
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    match args.command {
        Command::Train { files, vocab_size, min_frequency, out } => {
            train_files(&files, &TrainConfig { vocab_size, min_frequency }, &out, ctx)?;
        }
        Command::Encode { tokenizer, jsonl: Some(file), .. } => {
            encode_lines(&Tokenizer::from_file(&tokenizer)?, &file, ctx)?;
        }
        Command::Encode { tokenizer, text, .. } => {
            let ids = Tokenizer::from_file(&tokenizer)?.encode(&text.unwrap_or_default())?;
            ctx.out.line(&json!({ "ids": ids }))?;
        }
        Command::Decode { tokenizer, ids } => {
            let text = Tokenizer::from_file(&tokenizer)?.decode(&ids)?;
            ctx.out.text(&text)?;
            ctx.out.document(&json!({ "text": text }))?;
        }
    }
    Ok(ExitStatus::Done)
}

fn train_files(
    files: &[PathBuf],
    config: &TrainConfig,
    out: &Path,
    ctx: &mut Context,
) -> Result<(), CliError> {
    let texts = files.iter().map(|file| read_texts(file)).collect::<Result<Vec<_>, _>>()?.concat();
    let bytes: usize = texts.iter().map(String::len).sum();
    ctx.out.log().info(format_args!("training on {} texts, {} bytes", texts.len(), bytes));
    let json = train(texts.iter(), config)?;
    let tokenizer = Tokenizer::from_bytes(json, out)?;
    durable::write_file(out, tokenizer.bytes())?;
    let sample: usize = texts.iter().take(100).map(String::len).sum();
    let ids: usize = tokenizer.encode_batch(&texts[..texts.len().min(100)])?.iter().map(Vec::len).sum();
    let bytes_per_token = sample as f64 / ids.max(1) as f64;
    let vocab_size = tokenizer.num_ids();
    ctx.out
        .text(format_args!("{}: {vocab_size} tokens, {bytes_per_token:.2} bytes a token", out.display()))?;
    ctx.out.document(&json!({
        "path": out, "vocab_size": vocab_size, "texts": texts.len(), "bytes": bytes, "bytes_per_token": bytes_per_token,
    }))
}

fn read_texts(file: &Path) -> Result<Vec<String>, CliError> {
    let text =
        std::fs::read_to_string(file).map_err(|error| CliError::read(ExitStatus::Data, file, error))?;
    if file.extension().is_none_or(|extension| extension != "jsonl") {
        return Ok(vec![text]);
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(number, line)| text_of(line, file, number + 1)).collect()
}

fn text_of(line: &str, file: &Path, number: usize) -> Result<String, CliError> {
    let wrong = |problem: String| CliError::data(format!("{}:{number}: {problem}", file.display()));
    let value: Value = serde_json::from_str(line).map_err(|error| wrong(format!("broken JSON: {error}")))?;
    value["text"].as_str().map(str::to_owned).ok_or_else(|| wrong("the object has no string `text`".into()))
}

/// Lines in, lines out, some thousand at a time on all cores.
fn encode_lines(tokenizer: &Tokenizer, file: &Path, ctx: &mut Context) -> Result<(), CliError> {
    const LINES: usize = 4096;
    let reader: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let file =
            std::fs::File::open(file).map_err(|error| CliError::read(ExitStatus::Data, file, error))?;
        Box::new(std::io::BufReader::new(file))
    };
    let mut batch = Vec::new();
    for (number, line) in reader.lines().enumerate() {
        let line = line.map_err(|error| CliError::read(ExitStatus::Data, file, error))?;
        batch.push(text_of(&line, file, number + 1)?);
        if batch.len() == LINES {
            print_ids(tokenizer, &std::mem::take(&mut batch), ctx)?;
        }
    }
    print_ids(tokenizer, &batch, ctx)
}

fn print_ids(tokenizer: &Tokenizer, texts: &[String], ctx: &mut Context) -> Result<(), CliError> {
    tokenizer.encode_batch(texts)?.iter().try_for_each(|ids| ctx.out.line(&json!({ "ids": ids })))
}
