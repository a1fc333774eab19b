//! `mpt bench tokenizer`: throughput of encoding on all threads and of decoding on one, and the time to load.

use std::path::PathBuf;
use std::time::Instant;

use mpt_tokenize::Tokenizer;
use serde_json::json;

use super::measurement::median;
use crate::exit::{CliError, ExitStatus};
use crate::machine;
use crate::settings::Context;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The tokenizer.json
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// UTF-8 text; it is encoded in pieces of 64 KiB, all threads at once
    file: PathBuf,
    /// Repetitions
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,
}

/// Minimum size of a chunk, that of a long document.
const CHUNK_BYTES: usize = 64 << 10;

pub(super) fn run(args: &Args, ctx: &mut Context) -> Result<(), CliError> {
    let began = Instant::now();
    let tokenizer = Tokenizer::from_file(&args.tokenizer)?;
    let load_seconds = began.elapsed().as_secs_f64();
    let file = &args.file;
    let text =
        std::fs::read_to_string(file).map_err(|error| CliError::read(ExitStatus::Data, file, error))?;
    if text.is_empty() {
        return Err(CliError::data(format!("{}: the file is empty", file.display())));
    }
    let chunks = chunks(&text);
    let (mut encode, mut decode, mut tokens) = (Vec::new(), Vec::new(), 0);
    for _ in 0..args.reps {
        let began = Instant::now();
        let ids = tokenizer.encode_batch(&chunks)?;
        encode.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        for chunk in &ids {
            tokenizer.decode(chunk)?;
        }
        decode.push(began.elapsed().as_secs_f64());
        tokens = ids.iter().map(Vec::len).sum();
    }
    let (encode, decode) = (median(&encode), median(&decode));
    let (bytes, megabytes) = (text.len(), text.len() as f64 / 1e6);
    let (mb_per_s, tokens_per_s) = (megabytes / encode, tokens as f64 / encode);
    let threads = rayon::current_num_threads();
    ctx.out.text(format_args!(
        "{megabytes:.1} MB, {tokens} tokens, {threads} threads: {mb_per_s:.1} MB/s, {tokens_per_s:.0} tokens/s; decoding on one {:.1} MB/s; loading {load_seconds:.3} s",
        megabytes / decode,
    ))?;
    ctx.out.json(&json!({
        "mb_per_s": mb_per_s, "tokens_per_s": tokens_per_s, "decode_mb_per_s": megabytes / decode, "bytes": bytes,
        "tokens": tokens, "threads": threads, "load_seconds": load_seconds, "peak_rss_bytes": machine::peak_rss_bytes(),
    }))
}

/// Splits a text into chunks at line ends.
fn chunks(text: &str) -> Vec<&str> {
    let (mut chunks, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let from = rest.floor_char_boundary(CHUNK_BYTES);
        let end = rest[from..].find('\n').map_or(rest.len(), |line| from + line + 1);
        let (chunk, after) = rest.split_at(end);
        chunks.push(chunk);
        rest = after;
    }
    chunks
}
