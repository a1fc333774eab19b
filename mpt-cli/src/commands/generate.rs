//! `mpt generate`: text generation, streamed to stdout.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mpt_infer::{Completion, CompletionParams, FinishReason, Generation, Pipeline, SamplingParams};
use serde_json::{Value, json};

use mpt_core::KvDtype;

use crate::dtype_args::kv_dtype;
use crate::exit::{CliError, ExitStatus};
use crate::model_args::AdapterModelArgs;
use crate::settings::Context;

/// Generate text
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt generate --model run --prompt \"Once upon a time\" --max-new-tokens 100
  mpt generate --model mpt-30b --prompt-file prompt.txt --max-new-tokens 256 --temperature 0.8 --top-p 0.95
  mpt generate --model run --prompt-ids 12092,13 --max-new-tokens 8 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    model: AdapterModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
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
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// How many texts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    n: u16,
    /// Tokens of prompt and text together [default: unbounded with ALiBi, else the model's max_seq_len]
    #[arg(long, value_name = "L")]
    max_seq_len: Option<usize>,
    /// How the keys and values of what was read are kept; smaller ones read longer texts faster, and round
    #[arg(long, value_name = "DTYPE", default_value = "f32", value_parser = kv_dtype())]
    kv_dtype: KvDtype,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct PromptArgs {
    /// The text to go on with
    #[arg(long = "prompt", value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
    /// Token ids to go on with; no tokenizer is needed
    #[arg(long = "prompt-ids", value_name = "IDS", value_delimiter = ',')]
    ids: Option<Vec<u32>>,
    /// A file with the text to go on with
    #[arg(long = "prompt-file", value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let began = Instant::now();
    let pipeline = args.model.pipeline(ctx)?;
    let load_seconds = began.elapsed().as_secs_f64();
    let prompt = args.prompt.read()?;
    if matches!(prompt, Prompt::Ids(_)) && !args.stop.is_empty() {
        return Err(CliError::usage("--stop: stop texts need text; they cannot be used with --prompt-ids"));
    }
    let mut choices = Vec::new();
    let (mut prompt_tokens, mut completion_tokens, mut prefill, mut decode) = (0, 0, 0.0, 0.0);
    for index in 0..args.n {
        if index > 0 {
            ctx.out.text("\n---")?;
        }
        let params = completion_params(&args, ctx.seed.unwrap_or(0) + u64::from(index));
        let choice = generate_choice(&pipeline, &prompt, &params, ctx)?;
        prompt_tokens = choice.prompt_tokens;
        completion_tokens += choice.generation.ids.len();
        prefill += choice.generation.prefill_seconds;
        decode += choice.generation.decode_seconds;
        choices.push(choice.json());
        if ctx.stop().load(Ordering::Relaxed) {
            break;
        }
    }
    ctx.out.text("")?;
    ctx.out.json(&json!({
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
        "timings": { "load_seconds": load_seconds, "prefill_seconds": prefill, "decode_seconds": decode },
    }))?;
    Ok(if ctx.stop().load(Ordering::Relaxed) { ExitStatus::Interrupted } else { ExitStatus::Done })
}

/// Prompt. Text is continued as text, ids as ids.
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

impl PromptArgs {
    fn read(&self) -> Result<Prompt, CliError> {
        match (&self.ids, &self.text, &self.file) {
            (Some(ids), _, _) => Ok(Prompt::Ids(ids.clone())),
            (None, Some(text), _) => Ok(Prompt::Text(text.clone())),
            (None, None, Some(file)) => {
                let text = std::fs::read_to_string(file);
                Ok(Prompt::Text(text.map_err(|error| CliError::read(ExitStatus::Usage, file, error))?))
            }
            (None, None, None) => unreachable!("one kind of prompt is required"),
        }
    }
}

fn completion_params(args: &Args, seed: u64) -> CompletionParams {
    CompletionParams {
        max_new_tokens: args.max_new_tokens,
        sampling: SamplingParams {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            repetition_penalty: args.repetition_penalty,
            seed,
        },
        stop: args.stop.clone(),
        stop_ids: None,
        max_seq_len: args.max_seq_len,
        kv_dtype: args.kv_dtype,
    }
}

/// Generated choice.
struct Choice {
    prompt_tokens: usize,
    text: Option<String>,
    generation: Generation,
}

impl Choice {
    fn json(&self) -> Value {
        let Generation { ids, finish_reason, .. } = &self.generation;
        let finish_reason = match finish_reason {
            FinishReason::Callback => json!("interrupted"),
            reason => json!(reason),
        };
        json!({ "ids": ids, "text": self.text, "finish_reason": finish_reason })
    }
}

/// Generates a choice and streams it.
fn generate_choice(
    pipeline: &Pipeline,
    prompt: &Prompt,
    params: &CompletionParams,
    ctx: &mut Context,
) -> Result<Choice, CliError> {
    let interrupted = ctx.stop();
    let mut failure = None;
    let mut show = |piece: &str| {
        failure = ctx.out.chunk(piece).err();
        let ends = failure.is_some() || interrupted.load(Ordering::Relaxed);
        if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let choice = match prompt {
        Prompt::Text(text) => {
            let Completion { text, prompt_tokens, generation } = pipeline.stream(text, params, &mut show)?;
            Choice { prompt_tokens, text: Some(text), generation }
        }
        Prompt::Ids(ids) => {
            let generation = pipeline.stream_ids(ids, params, &mut |id| show(&format!("{id} ")))?;
            Choice { prompt_tokens: ids.len(), text: None, generation }
        }
    };
    if choice.generation.finish_reason == FinishReason::Context {
        let tokens = choice.prompt_tokens + choice.generation.ids.len();
        ctx.out
            .log()
            .warn(format_args!("the text ends early: {tokens} tokens in all are what `max_seq_len` allows"));
    }
    failure.map_or(Ok(choice), Err)
}
