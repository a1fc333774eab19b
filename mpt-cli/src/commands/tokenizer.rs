//! `mpt tokenizer`: training, encoding, decoding and chat templates.

mod chat;

use std::io::BufRead;
use std::path::{Path, PathBuf};

use mpt_data::durable;
use mpt_tokenize::{Tokenizer, TrainConfig, train};
use serde_json::{Value, json};

use self::chat::{print_rendered, read_messages, select_template};
use crate::exit::{CliError, ExitStatus};
use crate::export;
use crate::output::path_text;
use crate::settings::Context;

/// Train a tokenizer, encode text, decode ids, apply chat templates
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
        #[arg(allow_hyphen_values = true)]
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
    /// Print the text that a conversation becomes, byte for byte
    #[command(
        after_help = "Examples:\n  mpt tokenizer apply-template --template chatml --messages chat.json --add-generation-prompt\n  mpt tokenizer apply-template --model mpt-30b-chat --messages chat.json --json\n\nBuilt-in templates: chatml, mpt-30b-instruct, mpt-7b-instruct, dolly."
    )]
    ApplyTemplate {
        /// Model folder, GGUF file or run folder, whose own template is used unless another is named
        #[arg(long, value_name = "PATH", required_unless_present_any = ["template", "template_file"])]
        model: Option<PathBuf>,
        /// A built-in template
        #[arg(long, value_name = "NAME")]
        template: Option<String>,
        /// A file with a Jinja template
        #[arg(long, value_name = "FILE", conflicts_with = "template")]
        template_file: Option<PathBuf>,
        /// A JSON list of `{"role": …, "content": …}`, or an object with it as `messages`; `-` reads standard input
        #[arg(long, value_name = "FILE")]
        messages: PathBuf,
        /// End with the beginning of the assistant's next message
        #[arg(long)]
        add_generation_prompt: bool,
    },
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    match args.command {
        Command::Train { files, vocab_size, min_frequency, out } => {
            train_on_files(&files, &TrainConfig { vocab_size, min_frequency }, &out, ctx)?;
        }
        Command::Encode { tokenizer, jsonl: Some(file), .. } => {
            encode_lines(&Tokenizer::from_file(&tokenizer)?, &file, ctx)?;
        }
        Command::Encode { tokenizer, text, .. } => {
            let ids = Tokenizer::from_file(&tokenizer)?.encode(&text.unwrap_or_default())?;
            ctx.out.json_line(&json!({ "ids": ids }))?;
        }
        Command::Decode { tokenizer, ids } => {
            let text = Tokenizer::from_file(&tokenizer)?.decode(&ids)?;
            ctx.out.text(&text)?;
            ctx.out.json(&json!({ "text": text }))?;
        }
        Command::ApplyTemplate { model, template, template_file, messages, add_generation_prompt } => {
            let template = select_template(model.as_deref(), template.as_deref(), template_file.as_deref())?;
            let text = template.render(&read_messages(&messages)?, add_generation_prompt)?;
            print_rendered(&template, &text, model.as_deref(), ctx)?;
        }
    }
    Ok(ExitStatus::Done)
}

fn train_on_files(
    files: &[PathBuf],
    config: &TrainConfig,
    out: &Path,
    ctx: &mut Context,
) -> Result<(), CliError> {
    export::refuse_input(out, None, &files.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    let output = export::Replacement::begin(out)?;
    let texts = files.iter().map(|file| read_texts(file)).collect::<Result<Vec<_>, _>>()?.concat();
    let bytes: usize = texts.iter().map(String::len).sum();
    ctx.out.log().info(format_args!("training on {} texts, {} bytes", texts.len(), bytes));
    let json = train(texts.iter(), config)?;
    let tokenizer = Tokenizer::from_bytes(json, out)?;
    durable::write_file(output.path(), tokenizer.json_bytes())?;
    output.commit()?;
    let sample: usize = texts.iter().take(100).map(String::len).sum();
    let ids: usize = tokenizer.encode_batch(&texts[..texts.len().min(100)])?.iter().map(Vec::len).sum();
    let bytes_per_token = sample as f64 / ids.max(1) as f64;
    let vocab_size = tokenizer.num_ids();
    if vocab_size < config.vocab_size {
        ctx.out.log().warn(format_args!(
            "{vocab_size} tokens, and {} were asked for: no other pair occurs {} times; give more text, or a lower \
             --min-frequency",
            config.vocab_size, config.min_frequency
        ));
    }
    ctx.out
        .text(format_args!("{}: {vocab_size} tokens, {bytes_per_token:.2} bytes a token", out.display()))?;
    ctx.out.json(&json!({
        "path": path_text(out), "vocab_size": vocab_size, "texts": texts.len(), "bytes": bytes, "bytes_per_token": bytes_per_token,
    }))
}

fn read_texts(file: &Path) -> Result<Vec<String>, CliError> {
    let text =
        std::fs::read_to_string(file).map_err(|error| CliError::read(ExitStatus::Data, file, error))?;
    if file.extension().is_none_or(|extension| extension != "jsonl") {
        return Ok(vec![text]);
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(number, line)| parse_text_line(line, file, number + 1)).collect()
}

fn parse_text_line(line: &str, file: &Path, number: usize) -> Result<String, CliError> {
    let invalid = |problem: String| CliError::data(format!("{}:{number}: {problem}", file.display()));
    let value: Value =
        serde_json::from_str(line).map_err(|error| invalid(format!("broken JSON: {error}")))?;
    value["text"].as_str().map(str::to_owned).ok_or_else(|| invalid("the object has no string `text`".into()))
}

/// Encodes JSON Lines from `file` to stdout, in batches on all cores.
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
        batch.push(parse_text_line(&line, file, number + 1)?);
        if batch.len() == LINES {
            print_ids(tokenizer, &std::mem::take(&mut batch), ctx)?;
        }
    }
    print_ids(tokenizer, &batch, ctx)
}

fn print_ids(tokenizer: &Tokenizer, texts: &[String], ctx: &mut Context) -> Result<(), CliError> {
    tokenizer.encode_batch(texts)?.iter().try_for_each(|ids| ctx.out.json_line(&json!({ "ids": ids })))
}
