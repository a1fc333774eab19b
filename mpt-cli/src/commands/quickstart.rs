//! `mpt quickstart`: data, tokenizer, training, evaluation and generation on this machine in a few minutes, without a
//! download.

mod corpus;
mod html_report;
mod unigram;

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};

use mpt_data::{Loader, LoaderConfig, Manifest, PrepareRun, Split, durable, inspect, prepare};
use mpt_infer::{CompletionParams, Pipeline, SamplingParams};
use mpt_tokenize::{Tokenizer, TrainConfig, train as train_tokenizer};
use mpt_train::{Resume, TrainRun, TrainSummary};
use serde_json::json;

use self::corpus::Source;
use self::unigram::Unigram;
use crate::commands::data::PrepareProgress;
use crate::commands::train::train_with_progress;
use crate::exit::{CliError, ExitStatus};
use crate::output::path_text;
use crate::report::Sample;
use crate::settings::Context;

const VOCAB_SIZE: usize = 4096;
const SEQ_LEN: usize = 256;
const BATCH_SIZE: usize = 16;
/// Number of held-out sequences on which the model and the baseline are evaluated.
const EVAL_SAMPLES: usize = 128;
/// Training steps per minute on two cores. The run ends after a number of steps, not by the clock, so its bytes are the
/// same everywhere.
const STEPS_PER_MINUTE: f64 = 70.0;
const PROMPT_TOKENS: usize = 12;
const SAMPLE_TOKENS: usize = 64;

/// Go the whole way on this machine, with no download: data, tokenizer, model, evaluation, text
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt quickstart
  mpt quickstart --corpus ~/notes --corpus ~/mail.txt --minutes 10

Without --corpus the text is that of the crates cargo fetched to build this program.")]
pub(crate) struct Args {
    /// Where everything goes
    #[arg(long, value_name = "DIR", default_value = "mpt-quickstart")]
    dir: PathBuf,
    /// Files and folders of text to learn from, each a source
    #[arg(long, value_name = "PATH", num_args = 1..)]
    corpus: Vec<PathBuf>,
    /// About how long to train, in minutes on two cores
    #[arg(long, value_name = "M", default_value_t = 3.0, value_parser = minutes)]
    minutes: f64,
    /// Steps to train, instead of minutes
    #[arg(long, value_name = "N", conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (0.01..=10_000.0).contains(&minutes) { Ok(minutes) } else { Err("expected from 0.01 to 10000".into()) }
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let steps = args.steps.unwrap_or_else(|| (args.minutes * STEPS_PER_MINUTE).round().max(1.0) as u64);
    let seed = ctx.seed.unwrap_or(17);
    let folder = QuickstartDir { dir: args.dir };
    let _lock = folder.lock()?;
    let sources = match &args.corpus[..] {
        [] => corpus::from_cargo(include_str!("../../../Cargo.lock"))?,
        paths => corpus::from_paths(paths)?,
    };
    let tokenizer = folder.tokenizer(&sources, ctx)?;
    let manifest = folder.data(&sources, &tokenizer, seed, ctx)?;
    let run = folder.write_run_file(&tokenizer, steps, seed)?;
    let summary = train_with_progress(&run, Resume::Auto, ctx)?;
    if summary.interrupted {
        return Ok(ExitStatus::Interrupted);
    }
    let unigram_loss = unigram_baseline(&manifest, &run, seed)?;
    let samples = samples(&summary, &manifest, seed)?;
    let outcome = Outcome { summary, unigram_loss, samples, next_commands: folder.next_commands() };
    html_report::write(&folder.dir, &outcome, &inspect(&manifest, Some(outcome.summary.tokens))?)?;
    print_summary(&folder, &outcome, ctx)?;
    Ok(ExitStatus::Done)
}

/// Results of a quickstart.
struct Outcome {
    summary: TrainSummary,
    unigram_loss: f64,
    samples: Vec<Sample>,
    next_commands: Vec<String>,
}

/// Folder of a quickstart.
struct QuickstartDir {
    dir: PathBuf,
}

impl QuickstartDir {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Creates the folder and locks it for this process.
    fn lock(&self) -> Result<File, CliError> {
        durable::make_dir(&self.dir)?;
        let lock = durable::lock(&self.path(".lock"))?;
        Ok(lock.ok_or_else(|| mpt_data::Error::Busy { path: self.dir.clone() })?)
    }

    /// Writes the corpus as JSON Lines and trains a tokenizer on it.
    fn tokenizer(&self, sources: &[Source], ctx: &Context) -> Result<Tokenizer, CliError> {
        for source in sources {
            let lines: String =
                source.documents.iter().map(|document| json!(document).to_string() + "\n").collect();
            durable::write_file(&self.path(&format!("corpus/{}.jsonl", source.name)), lines.as_bytes())?;
        }
        let texts: Vec<&str> =
            sources.iter().flat_map(|source| &source.documents).map(|d| d.text.as_str()).collect();
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        let log = ctx.out.log();
        log.info(format_args!(
            "corpus: {} documents, {:.1} MB; training a tokenizer",
            texts.len(),
            bytes as f64 / 1e6
        ));
        let path = self.path("tokenizer.json");
        let bytes =
            train_tokenizer(texts.into_iter(), &TrainConfig { vocab_size: VOCAB_SIZE, min_frequency: 2 })?;
        let tokenizer = Tokenizer::from_bytes(bytes, &path)?;
        durable::write_file(&path, tokenizer.bytes())?;
        Ok(tokenizer)
    }

    /// Prepares a mix in which each source has the proportion of its size.
    fn data(
        &self,
        sources: &[Source],
        tokenizer: &Tokenizer,
        seed: u64,
        ctx: &Context,
    ) -> Result<Manifest, CliError> {
        let size =
            |source: &Source| source.documents.iter().map(|document| document.text.len()).sum::<usize>();
        let sizes: Vec<_> = sources.iter().map(size).collect();
        let proportions = proportions(&sizes);
        let mut mix = format!(
            "tokenizer = \"tokenizer.json\"\nseed = {seed}\nseq_len = {SEQ_LEN}\neval_fraction = 0.02\n"
        );
        for (source, proportion) in sources.iter().zip(proportions) {
            let name = &source.name;
            let _ = write!(
                mix,
                "\n[[sources]]\nname = \"{name}\"\nproportion = {proportion}\npaths = [\"corpus/{name}.jsonl\"]\nformat = \"jsonl\"\n"
            );
        }
        let path = self.path("mix.toml");
        durable::write_file(&path, mix.as_bytes())?;
        let mut run = PrepareRun::from_file(&path)?;
        run.out = self.path("data");
        Ok(prepare(&run, tokenizer, &mut PrepareProgress::new(ctx))?)
    }

    fn write_run_file(&self, tokenizer: &Tokenizer, steps: u64, seed: u64) -> Result<TrainRun, CliError> {
        let text = format!(
            "# A small MPT: `mpt train` with this file gives the same checkpoint again.\n\
             run_dir = \"run\"\n\n\
             [model]\nd_model = 256\nn_heads = 4\nn_layers = 4\nvocab_size = {}\nmax_seq_len = {SEQ_LEN}\n\n\
             [data]\ndir = \"data\"\n\n\
             [optimizer]\nkind = \"adamw\"\nlr = 3e-3\nweight_decay = 1e-4\n\n\
             [schedule]\nkind = \"cosine\"\nwarmup_steps = {}\nalpha_f = 0.1\n\n\
             [train]\nsteps = {steps}\nbatch_size = {BATCH_SIZE}\nseed = {seed}\neval_every = {}\neval_samples = {EVAL_SAMPLES}\n\n\
             [checkpoint]\nevery_steps = 100\n",
            tokenizer.num_ids().next_multiple_of(64),
            (steps / 10).min(20),
            (steps / 4).max(1),
        );
        let path = self.path("run.toml");
        durable::write_file(&path, text.as_bytes())?;
        Ok(TrainRun::from_file(&path, &[])?)
    }

    fn next_commands(&self) -> Vec<String> {
        let dir = self.dir.display();
        vec![
            format!("mpt generate --model {dir}/run --prompt \"pub fn \" --temperature 0.8"),
            format!("mpt data inspect {dir}/data"),
            format!("mpt train {dir}/run.toml --set train.steps=1000"),
            format!("mpt bench infer --model {dir}/run"),
        ]
    }
}

/// Proportions by size that sum to 1, in multiples of a power of ten of 1/100 or less; none is zero.
fn proportions(sizes: &[usize]) -> Vec<f64> {
    let (count, total) = (sizes.len(), sizes.iter().sum::<usize>().max(1));
    let whole =
        (2..).map(|digits| 10usize.pow(digits)).find(|&whole| whole >= 10 * count).unwrap_or(usize::MAX);
    let part = |&size: &usize| 1 + (size as u128 * (whole - count) as u128 / total as u128) as usize;
    let mut parts: Vec<_> = sizes.iter().map(part).collect();
    let largest = (0..count).max_by_key(|&index| parts[index]).unwrap_or(0);
    parts[largest] += whole - parts.iter().sum::<usize>();
    parts.into_iter().map(|part| part as f64 / whole as f64).collect()
}

/// Mean loss of token frequencies, counted on all training tokens, on the held-out sequences of the model's evaluation.
fn unigram_baseline(manifest: &Manifest, run: &TrainRun, seed: u64) -> Result<f64, CliError> {
    let config = |split| LoaderConfig {
        seq_len: SEQ_LEN,
        seed,
        batch_size: BATCH_SIZE,
        ..LoaderConfig::new(manifest, split)
    };
    let mut unigram = Unigram::new(manifest.plan().vocab_size);
    for batch in Loader::new(manifest, config(Split::Train), None)?.take(run.train.steps as usize) {
        unigram.count(&batch?.tokens);
    }
    let (mut sum, mut tokens) = (0.0, 0);
    for batch in Loader::new(manifest, config(Split::Eval), None)?.take(EVAL_SAMPLES / BATCH_SIZE) {
        for row in batch?.tokens.chunks(SEQ_LEN) {
            sum += row[1..].iter().map(|&token| unigram.loss(token)).sum::<f64>();
            tokens += row.len() - 1;
        }
    }
    Ok(sum / tokens as f64)
}

/// Generates a text per source after the beginning of a held-out sequence.
fn samples(summary: &TrainSummary, manifest: &Manifest, seed: u64) -> Result<Vec<Sample>, CliError> {
    let pipeline = Pipeline::open(&summary.run_dir)?;
    let tokenizer = pipeline.tokenizer()?;
    let config = LoaderConfig { seq_len: SEQ_LEN, seed, ..LoaderConfig::new(manifest, Split::Eval) };
    let mut loader = Loader::new(manifest, config, None)?;
    let sampling = SamplingParams { temperature: 0.7, top_p: 0.9, seed, ..SamplingParams::default() };
    let params = CompletionParams { max_new_tokens: SAMPLE_TOKENS, sampling, ..CompletionParams::default() };
    let mut samples = Vec::new();
    let mut seen_sources = Vec::new();
    for index in 0..loader.eval_len().unwrap_or(0) {
        let sample = loader.sample(index)?;
        if seen_sources.contains(&sample.id.source) {
            continue;
        }
        seen_sources.push(sample.id.source);
        let prompt = &sample.tokens[..PROMPT_TOKENS];
        let text = tokenizer.decode(&pipeline.generate_ids(prompt, &params)?.ids)?;
        samples.push(Sample { prompt: tokenizer.decode(prompt)?, text });
    }
    Ok(samples)
}

fn print_summary(folder: &QuickstartDir, outcome: &Outcome, ctx: &mut Context) -> Result<(), CliError> {
    let summary = &outcome.summary;
    let eval_loss = summary.eval_loss.unwrap_or(f64::NAN);
    for sample in &outcome.samples {
        ctx.out.text(format_args!("\n> {}\n{}", sample.prompt.trim(), sample.text))?;
    }
    ctx.out.text(format_args!(
        "\nloss on training text    {:.3} → {:.3} nats a token",
        summary.first_loss, summary.last_loss
    ))?;
    ctx.out.text(format_args!("loss on held-out text    {eval_loss:.3}"))?;
    ctx.out.text(format_args!("token frequencies alone  {:.3}", outcome.unigram_loss))?;
    ctx.out.text(format_args!("report                   {}", folder.path("report.html").display()))?;
    ctx.out.text("\nNext:")?;
    outcome.next_commands.iter().try_for_each(|command| ctx.out.text(format_args!("  {command}")))?;
    ctx.out.json(&json!({
        "model": path_text(&summary.run_dir), "data": path_text(&folder.path("data")), "report": path_text(&folder.path("report.html")),
        "tokens": summary.tokens, "steps": summary.step, "first_loss": summary.first_loss,
        "last_loss": summary.last_loss, "eval_loss": summary.eval_loss, "unigram_loss": outcome.unigram_loss,
        "sample": outcome.samples.first().map(|sample| format!("{}{}", sample.prompt, sample.text)),
        "samples": outcome.samples,
    }))
}

/// Path of the run's metrics.
fn metrics_path(dir: &Path) -> PathBuf {
    dir.join("run/metrics.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_one() {
        for sizes in [vec![6, 3, 1], vec![1], vec![1_000_000, 1, 1], vec![5, 5, 5]] {
            let proportions = proportions(&sizes);
            assert!((proportions.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{proportions:?}");
            assert!(proportions.iter().all(|&proportion| proportion >= 0.01), "{proportions:?}");
        }
        for count in [11, 99, 101, 150, 999, 5000] {
            let mut sizes = vec![1; count];
            (sizes[0], sizes[1]) = (1000 * count, 1000 * count);
            let proportions = proportions(&sizes);
            assert!((proportions.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{count}");
            assert!(proportions.iter().all(|&proportion| proportion > 0.0), "{count}");
        }
    }
}
