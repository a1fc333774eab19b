//! `mpt generate`: text from a model, as it comes.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use mpt_infer::{FinishReason, GenerateParams, SamplingParams, StopStrings, generate};
use mpt_tokenize::{StreamDecoder, Tokenizer};
use serde_json::{Value, json};

use crate::exit::{CliError, ExitStatus};
use crate::model::{AdaptedArgs, CacheDtype, Model};
use crate::settings::Context;

/// Generate text
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt generate --model run --prompt \"Once upon a time\" --max-new-tokens 100
  mpt generate --model mpt-30b --prompt-file prompt.txt --max-new-tokens 256 --temperature 0.8 --top-p 0.95
  mpt generate --model run --prompt-ids 12092,13 --max-new-tokens 8 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    model: AdaptedArgs,
    #[command(flatten)]
    prompt: Prompt,
    /// New tokens at most
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// Divides the logits; 0 takes the most probable token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Draw from the K most probable tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Draw from the most probable tokens that have probability P together
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Draw from tokens with this share of the highest probability
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Make tokens that are there already less probable; 1 for not
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// End where this text comes up
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// How many texts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    n: u16,
    /// Tokens of prompt and text together [default: unbounded with ALiBi, else the model's max_seq_len]
    #[arg(long, value_name = "L")]
    max_seq_len: Option<usize>,
    /// How the keys and values of what was read are kept; smaller ones read longer texts faster, and round
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    kv_dtype: CacheDtype,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Prompt {
    /// The text to go on with
    #[arg(long = "prompt", value_name = "TEXT")]
    text: Option<String>,
    /// Token ids to go on with; no tokenizer is needed
    #[arg(long = "prompt-ids", value_name = "IDS", value_delimiter = ',')]
    ids: Option<Vec<u32>>,
    /// A file with the text to go on with
    #[arg(long = "prompt-file", value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let model = args.model.load()?;
    let (prompt, tokenizer) = prompt_ids(&args.prompt, &model)?;
    if tokenizer.is_none() && !args.stop.is_empty() {
        return Err(CliError::usage("--stop: stop texts need text; they cannot be used with --prompt-ids"));
    }
    let mut choices = Vec::new();
    let (mut completion, mut prefill, mut decode) = (0, 0.0, 0.0);
    for index in 0..args.n {
        if index > 0 {
            ctx.out.text("\n---")?;
        }
        let params = params(&args, &model, ctx.seed.unwrap_or(0) + u64::from(index));
        let choice = one(&model, &prompt, &params, tokenizer, &args.stop, ctx)?;
        completion += choice.ids.len();
        prefill += choice.prefill_seconds;
        decode += choice.decode_seconds;
        choices.push(choice.json);
        if ctx.stop().load(Ordering::Relaxed) {
            break;
        }
    }
    ctx.out.text("")?;
    ctx.out.document(&json!({
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt.len(), "completion_tokens": completion, "total_tokens": prompt.len() + completion,
        },
        "timings": { "load_seconds": model.load_seconds, "prefill_seconds": prefill, "decode_seconds": decode },
    }))?;
    Ok(if ctx.stop().load(Ordering::Relaxed) { ExitStatus::Interrupted } else { ExitStatus::Done })
}

/// The prompt, and the tokenizer where the answer is text.
fn prompt_ids<'a>(prompt: &Prompt, model: &'a Model) -> Result<(Vec<u32>, Option<&'a Tokenizer>), CliError> {
    let text = match (&prompt.ids, &prompt.text, &prompt.file) {
        (Some(ids), _, _) => return Ok((ids.clone(), None)),
        (None, Some(text), _) => text.clone(),
        (None, None, Some(file)) => {
            std::fs::read_to_string(file).map_err(|error| CliError::read(ExitStatus::Usage, file, error))?
        }
        (None, None, None) => unreachable!("one kind of prompt is required"),
    };
    let tokenizer = model.need_tokenizer()?;
    let mut ids = tokenizer.encode(&text)?;
    if ids.is_empty() {
        // A text begins where another one ended.
        ids.extend(tokenizer.eos_id());
    }
    Ok((ids, Some(tokenizer)))
}

fn params(args: &Args, model: &Model, seed: u64) -> GenerateParams {
    GenerateParams {
        max_new_tokens: args.max_new_tokens,
        sampling: SamplingParams {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            repetition_penalty: args.repetition_penalty,
            seed,
        },
        stop_ids: model.stop_ids.clone(),
        num_ids: model.tokenizer.as_ref().map(Tokenizer::num_ids),
        max_seq_len: args.max_seq_len,
        kv_dtype: args.kv_dtype.into(),
    }
}

struct Choice {
    ids: Vec<u32>,
    prefill_seconds: f64,
    decode_seconds: f64,
    json: Value,
}

fn one(
    model: &Model,
    prompt: &[u32],
    params: &GenerateParams,
    tokenizer: Option<&Tokenizer>,
    stop: &[String],
    ctx: &mut Context,
) -> Result<Choice, CliError> {
    let mut text = tokenizer.map(|tokenizer| Text::new(tokenizer.stream(), stop));
    let mut failure = None;
    let interrupted = ctx.stop();
    let generation = generate(&model.lm, prompt, params, &mut |id| {
        let shown = match &mut text {
            Some(text) => text.push(id, ctx),
            None => ctx.out.stream(&format!("{id} ")),
        };
        failure = shown.err();
        let ended = text.as_ref().is_some_and(Text::ended) || interrupted.load(Ordering::Relaxed);
        if failure.is_some() || ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    let by_text = text.as_ref().is_some_and(Text::ended);
    let whole = text.map(|text| text.finish(ctx)).transpose()?;
    let reason = if by_text { FinishReason::Stop } else { generation.finish_reason };
    let json = json!({ "ids": generation.ids, "text": whole, "finish_reason": reason });
    let (prefill_seconds, decode_seconds) = (generation.prefill_seconds, generation.decode_seconds);
    Ok(Choice { ids: generation.ids, prefill_seconds, decode_seconds, json })
}

/// Text on its way out: decoded, searched for stop texts, shown.
struct Text<'a> {
    decoder: StreamDecoder<'a>,
    stop: StopStrings,
    whole: String,
}

impl<'a> Text<'a> {
    fn new(decoder: StreamDecoder<'a>, stop: &[String]) -> Self {
        Self { decoder, stop: StopStrings::new(stop), whole: String::new() }
    }

    fn push(&mut self, id: u32, ctx: &mut Context) -> Result<(), CliError> {
        let piece = self.decoder.push(id)?;
        let piece = self.stop.push(&piece);
        self.show(&piece, ctx)
    }

    fn ended(&self) -> bool {
        self.stop.found()
    }

    fn finish(mut self, ctx: &mut Context) -> Result<String, CliError> {
        let rest = self.decoder.finish();
        let mut last = self.stop.push(&rest);
        last.push_str(&self.stop.finish());
        self.whole.push_str(&last);
        ctx.out.stream(&last)?;
        Ok(self.whole)
    }

    fn show(&mut self, piece: &str, ctx: &mut Context) -> Result<(), CliError> {
        self.whole.push_str(piece);
        ctx.out.stream(piece)
    }
}
