//! A whole run: from the run file to its last checkpoint, over any number of interruptions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::{Device, Tensor};
use mpt_core::{MptConfig, Params, Weights, check_memory};
use mpt_data::{Loader, LoaderConfig, Manifest, Split, durable};
use mpt_tokenize::Tokenizer;
use serde_json::Value;

use crate::checkpoint::{Checkpoint, Checkpoints, Fixed, State, latest_checkpoint};
use crate::error::{Error, Result};
use crate::evaluate::evaluate;
use crate::metrics::MetricsFile;
use crate::observer::{Observer, StepMetrics, TrainEvent, TrainSummary};
use crate::run::{Resume, TrainRun, is_free};
use crate::schedule::Schedule;
use crate::step::{TokenRows, Trainer};

/// Held while a process trains: two must not do so in one folder.
const LOCK: &str = ".lock";

/// Keys of `[data]` that the cursor answers for, in the words of the data.
const ORDER_KEYS: [&str; 7] =
    ["sampling", "batching", "batch_group", "shuffle", "shuffle_window", "stages", "accept_changed"];

/// Trains, and returns when the last step is done or `stop` is set; in both cases the last checkpoint holds everything.
///
/// The same run file, data and seed give the same checkpoint bytes, whatever the number of threads and however often the
/// run was stopped or killed. A run that is done already returns at once.
///
/// # Errors
/// Those of the data, of checkpoints and of files; [`Error::Changed`] names a setting that differs from the
/// checkpoint's; [`Error::NotFinite`] when the loss or the gradient is.
pub fn train(
    run: &TrainRun,
    resume: Resume,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<TrainSummary> {
    let manifest = Manifest::open(&run.data.dir)?;
    let run = run.clone().resolved(&manifest);
    let tokenizer = tokenizer(&manifest)?;
    let config = model_config(&run)?;
    check_vocab(&run, &config, &manifest)?;
    durable::make_dir(&run.run_dir)?;
    let _lock =
        durable::lock(&run.run_dir.join(LOCK))?.ok_or_else(|| Error::Busy { path: run.run_dir.clone() })?;
    let mut session = Session::begin(&run, &manifest, &tokenizer, config, resume)?;
    session.announce(observer)?;
    while session.state.step < run.train.steps && !stop.load(Ordering::Relaxed) {
        if let Err(error) = session.step(observer) {
            return Err(error.with_checkpoint(session.checkpoints.latest()?));
        }
    }
    let latest = session.checkpoints.latest()?;
    session.finish(observer).map_err(|error| error.with_checkpoint(latest))
}

/// The copy of the tokenizer that lies with the data.
fn tokenizer(manifest: &Manifest) -> Result<Tokenizer> {
    let path = manifest.tokenizer_path();
    let tokenizer = Tokenizer::from_file(&path)?;
    if tokenizer.fingerprint() != manifest.plan().tokenizer {
        let problem =
            "is not the tokenizer the data was made with; restore it, or build the data again".to_owned();
        let damage = mpt_data::Damage { path: "tokenizer.json".into(), row: None, problem };
        return Err(mpt_data::Error::Shard(damage).into());
    }
    Ok(tokenizer)
}

fn model_config(run: &TrainRun) -> Result<MptConfig> {
    match (&run.model, &run.init_from) {
        (Some(config), _) => Ok(config.clone()),
        (None, Some(dir)) => Ok(base_weights(dir)?.config().clone()),
        (None, None) => unreachable!("the run file was checked"),
    }
}

/// The weights that training begins with; a run folder stands for its latest checkpoint.
fn base_weights(dir: &Path) -> Result<Weights> {
    Ok(Weights::open(&latest_checkpoint(dir)?.unwrap_or_else(|| dir.to_owned()))?)
}

fn check_vocab(run: &TrainRun, config: &MptConfig, manifest: &Manifest) -> Result<()> {
    let needed = manifest.plan().vocab_size;
    if config.vocab_size >= needed {
        return Ok(());
    }
    let (path, field, actual) = (run.path.clone(), "model.vocab_size".into(), config.vocab_size.to_string());
    let expected = format!("{needed} or more, the number of ids of the data's tokenizer");
    Err(Error::Config { path, field, expected, actual })
}

/// Every setting that decides the result, by its key in the run file.
fn settings(run: &TrainRun, config: &MptConfig) -> BTreeMap<String, String> {
    let table: toml::Table = run.to_toml().parse().expect("a printed run is TOML");
    let mut settings = BTreeMap::new();
    flatten("", &toml::Value::Table(table), &mut settings);
    // Data is known by its manifest and a model by its configuration, wherever they lie.
    let is_order = |key: &str| key.strip_prefix("data.").is_some_and(|key| ORDER_KEYS.contains(&key));
    settings
        .retain(|key, _| !is_free(key) && !is_order(key) && key != "data.dir" && !key.starts_with("model."));
    settings.insert("model".into(), Value::from(config.clone()).to_string());
    settings
}

fn flatten(place: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let inner = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                flatten(&inner, value, into);
            }
        }
        other => drop(into.insert(place.to_owned(), other.to_string())),
    }
}

/// A run from its start or its checkpoint to its next stop.
struct Session<'a> {
    run: &'a TrainRun,
    manifest: &'a Manifest,
    tokenizer: &'a Tokenizer,
    config: MptConfig,
    checkpoints: Checkpoints,
    resumed_from: Option<u64>,
    trainer: Trainer,
    loader: Loader,
    schedule: Schedule,
    metrics: MetricsFile,
    state: State,
}

impl<'a> Session<'a> {
    fn begin(
        run: &'a TrainRun,
        manifest: &'a Manifest,
        tokenizer: &'a Tokenizer,
        config: MptConfig,
        resume: Resume,
    ) -> Result<Self> {
        let checkpoints = Checkpoints::open(&run.run_dir, run.checkpoint.keep)?;
        let settings = settings(run, &config);
        let named = matches!(resume, Resume::From(_));
        let checkpoint = chosen(&checkpoints, &run.run_dir, resume)?;
        let mut changes = Vec::new();
        if let Some(checkpoint) = &checkpoint {
            changes = checkpoint.expect_settings(&settings, &run.data.accept_changed, named)?;
        }
        let loader = loader(run, manifest, Split::Train, run.train.batch_size, checkpoint.as_ref())?;
        let params = match (&checkpoint, &run.init_from) {
            (Some(checkpoint), _) => checkpoint.params()?,
            (None, Some(dir)) => Params::load(&base_weights(dir)?, &Device::Cpu)?,
            (None, None) => Params::init(&config, run.train.seed, &Device::Cpu)?,
        };
        let mut trainer = Trainer::new(&config, params, &run.optimizer, &run.train)?;
        if let Some(checkpoint) = &checkpoint {
            checkpoint.restore(&mut trainer)?;
            checkpoints.replace_after(checkpoint.state.step)?;
        }
        let resumed_from = checkpoint.as_ref().map(|checkpoint| checkpoint.state.step);
        let metrics = MetricsFile::open(&run.run_dir, resumed_from.unwrap_or(0))?;
        let state = match checkpoint {
            Some(checkpoint) => {
                let changes = [checkpoint.state.changes, changes].concat();
                State { settings, changes, ..checkpoint.state }
            }
            None => State::start(loader.cursor(), settings),
        };
        let schedule = Schedule::new(&run.schedule, run.train.steps);
        let session = Self {
            run,
            manifest,
            tokenizer,
            config,
            checkpoints,
            resumed_from,
            trainer,
            loader,
            schedule,
            metrics,
            state,
        };
        session.check_evaluation()?;
        Ok(session)
    }

    fn announce(&self, observer: &mut dyn Observer) -> Result<()> {
        observer.on_event(&TrainEvent::Started {
            resumed_from: self.resumed_from,
            total_steps: self.run.train.steps,
            parameters: self.config.num_parameters(),
            tokens_per_step: self.tokens_per_step(),
        })
    }

    fn step(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let began = Instant::now();
        let batch = self.loader.next().expect("training data does not end")?;
        let rows = TokenRows { tokens: &batch.tokens, documents: &batch.documents, seq: batch.seq };
        let (step, multiplier) = (self.state.step + 1, self.schedule.multiplier(self.state.step));
        let outcome = self.trainer.step(rows, multiplier, step)?;
        let tokens = batch.tokens.len() as u64;
        self.count(outcome.loss, tokens);
        let seconds = began.elapsed().as_secs_f64();
        let metrics = StepMetrics {
            step,
            loss: outcome.loss,
            grad_norm: outcome.grad_norm,
            lr: self.run.optimizer.lr() * multiplier,
            tokens: self.state.tokens,
            step_seconds: seconds,
            tokens_per_second: tokens as f64 / seconds,
        };
        self.metrics.step(&metrics)?;
        observer.on_event(&TrainEvent::Step(&metrics))?;
        self.after_step(observer)
    }

    fn count(&mut self, loss: f64, tokens: u64) {
        self.state.step += 1;
        self.state.tokens += tokens;
        self.state.cursor = self.loader.cursor();
        self.state.last_loss = loss;
        if self.state.step == 1 {
            self.state.first_loss = loss;
        }
    }

    /// Evaluates and saves where it is time.
    fn after_step(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let (step, is_last) = (self.state.step, self.state.step == self.run.train.steps);
        let every = self.run.train.eval_every;
        if is_last || (every > 0 && step.is_multiple_of(every)) {
            let loss = self.evaluate(observer)?;
            self.state.eval_loss = loss.filter(|_| is_last);
        }
        if is_last || step.is_multiple_of(self.run.checkpoint.every_steps) {
            self.save(observer)?;
        }
        Ok(())
    }

    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<Option<f64>> {
        let mut loader =
            loader(self.run, self.manifest, Split::Eval, self.run.train.microbatch_size(), None)?;
        let samples = loader.eval_len().unwrap_or(0).min(self.run.train.eval_samples.unwrap_or(u64::MAX));
        if samples == 0 {
            return Ok(None);
        }
        let batches = samples.div_ceil(self.run.train.microbatch_size() as u64);
        let report = evaluate(self.trainer.model(), &mut loader.by_ref().take(batches as usize))?;
        self.expect_finite("held-out loss", report.loss)?;
        self.metrics.evaluation(self.state.step, report.loss, report.tokens)?;
        let (step, loss, tokens) = (self.state.step, report.loss, report.tokens);
        observer.on_event(&TrainEvent::Evaluated { step, loss, tokens })?;
        Ok(Some(loss))
    }

    fn expect_finite(&self, what: &str, value: f64) -> Result<()> {
        if value.is_finite() {
            return Ok(());
        }
        Err(Error::NotFinite { step: self.state.step, what: what.to_owned(), value, checkpoint: None })
    }

    /// A checkpoint is what a run can go on from: weights that are no numbers are not saved.
    fn save(&self, observer: &mut dyn Observer) -> Result<()> {
        for (name, weight) in self.trainer.params().iter() {
            if let Some(value) = first_non_finite(weight)? {
                self.expect_finite(&format!("weight `{name}`"), value)?;
            }
        }
        let eos_id = self.manifest.contents().eos_id;
        let fixed = Fixed { config: &self.config, tokenizer: self.tokenizer, eos_id };
        let path = self.checkpoints.save(&self.trainer, &self.state, &fixed)?;
        observer.on_event(&TrainEvent::Saved { step: self.state.step, path: &path })
    }

    fn finish(self, observer: &mut dyn Observer) -> Result<TrainSummary> {
        let interrupted = self.state.step < self.run.train.steps;
        if interrupted {
            self.save(observer)?;
        }
        let summary = TrainSummary {
            run_dir: self.run.run_dir.clone(),
            step: self.state.step,
            tokens: self.state.tokens,
            first_loss: self.state.first_loss,
            last_loss: self.state.last_loss,
            eval_loss: self.state.eval_loss,
            checkpoint: self.checkpoints.latest()?.expect("the run was saved"),
            interrupted,
        };
        observer.on_event(&TrainEvent::Finished(&summary))?;
        Ok(summary)
    }

    fn check_evaluation(&self) -> Result<()> {
        let held_out = self.manifest.tokens(Split::Eval);
        if self.run.train.eval_every == 0 || held_out > 0 {
            return Ok(());
        }
        let (path, field) = (self.run.path.clone(), "train.eval_every".to_owned());
        let expected =
            "0, since the data has no held-out sequences; or data built with a larger `eval_fraction`"
                .to_owned();
        Err(Error::Config { path, field, expected, actual: self.run.train.eval_every.to_string() })
    }

    fn tokens_per_step(&self) -> u64 {
        (self.run.train.batch_size * seq_len(self.run)) as u64
    }
}

/// The checkpoint that a run goes on from.
fn chosen(checkpoints: &Checkpoints, run_dir: &Path, resume: Resume) -> Result<Option<Checkpoint>> {
    let latest = checkpoints.latest()?;
    match (resume, latest) {
        (Resume::Auto, latest) => latest.as_deref().map(Checkpoint::open).transpose(),
        (Resume::Never, Some(_)) => Err(Error::RunExists { path: run_dir.to_owned() }),
        (Resume::Never, None) => Ok(None),
        (Resume::From(path), latest) => {
            let checkpoint = Checkpoint::open(&path)?;
            if checkpoints.holds(&path) {
                return Ok(Some(checkpoint));
            }
            let is_later = |latest: Checkpoint| latest.state.step > checkpoint.state.step;
            if latest.as_deref().map(Checkpoint::open).transpose()?.is_some_and(is_later) {
                return Err(Error::RunExists { path: run_dir.to_owned() });
            }
            Ok(Some(checkpoint))
        }
    }
}

/// The first value of a parameter that is infinite or not a number.
fn first_non_finite(weight: &Tensor) -> Result<Option<f64>> {
    let values: Vec<f32> = weight.flatten_all()?.to_vec1()?;
    Ok(values.into_iter().find(|value| !value.is_finite()).map(f64::from))
}

fn seq_len(run: &TrainRun) -> usize {
    run.data.seq_len.expect("the run was resolved")
}

fn loader(
    run: &TrainRun,
    manifest: &Manifest,
    split: Split,
    batch_size: usize,
    checkpoint: Option<&Checkpoint>,
) -> Result<Loader> {
    let seed = run.data.seed.expect("the run was resolved");
    let tokens = (batch_size as u64).saturating_mul(seq_len(run) as u64);
    check_memory(tokens.saturating_mul((size_of::<u32>() + size_of::<u64>()) as u64))?;
    let config = LoaderConfig {
        seq_len: seq_len(run),
        seed,
        batch_size,
        mixing: run.data.mixing(&manifest.plan().mixing),
        accept: run.data.accept_changed.clone(),
        ..LoaderConfig::new(manifest, split)
    };
    Ok(Loader::new(manifest, config, checkpoint.map(|checkpoint| checkpoint.state.cursor.clone()))?)
}
