//! Session of a run: from its start or a checkpoint to its end or the next interruption.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{Device, Tensor};
use mpt_core::{MptConfig, Params, Weights, check_memory, latest_checkpoint};
use mpt_data::{Loader, LoaderConfig, Manifest, Split};
use mpt_tokenize::Tokenizer;

use crate::checkpoint::{Checkpoint, Checkpoints, ModelFiles, TrainState};
use crate::error::{Error, Result};
use crate::evaluate::evaluate;
use crate::metrics::MetricsFile;
use crate::observer::{Observer, StepMetrics, TrainEvent, TrainSummary};
use crate::run::{Resume, TrainRun, settings};
use crate::schedule::Schedule;
use crate::step::{TokenRows, Trainer};

/// Model, optimizer, data and files of a run in progress.
pub(crate) struct Session<'a> {
    run: &'a TrainRun,
    manifest: &'a Manifest,
    files: ModelFiles<'a>,
    checkpoints: Checkpoints,
    resumed_from: Option<u64>,
    trainer: Trainer,
    loader: Loader,
    schedule: Schedule,
    metrics: MetricsFile,
    state: TrainState,
}

impl<'a> Session<'a> {
    /// Opens the run folder, and restores the checkpoint that `resume` selects. `config` is the model's configuration.
    pub(crate) fn begin(
        run: &'a TrainRun,
        manifest: &'a Manifest,
        tokenizer: &'a Tokenizer,
        config: &'a MptConfig,
        resume: Resume,
    ) -> Result<Self> {
        check_evaluation(run, manifest)?;
        let checkpoints = Checkpoints::open(&run.run_dir, run.checkpoint.keep)?;
        let is_named = matches!(resume, Resume::From(_));
        let checkpoint = select_checkpoint(&checkpoints, &run.run_dir, resume)?;
        let settings = settings(run, config);
        let changes = match &checkpoint {
            Some(checkpoint) => checkpoint.compare_settings(&settings, &run.data.accept_changed, is_named)?,
            None => Vec::new(),
        };
        let loader = loader(run, manifest, Split::Train, run.train.batch_size, checkpoint.as_ref())?;
        let trainer = trainer(run, config, checkpoint.as_ref())?;
        let resumed_from = checkpoint.as_ref().map(|checkpoint| checkpoint.state.step);
        if let Some(step) = resumed_from {
            checkpoints.set_aside_after(step)?;
        }
        Ok(Self {
            run,
            manifest,
            files: ModelFiles { config, tokenizer, eos_id: manifest.contents().eos_id },
            checkpoints,
            resumed_from,
            trainer,
            schedule: Schedule::new(&run.schedule, run.train.steps),
            metrics: MetricsFile::open(&run.run_dir, resumed_from.unwrap_or(0))?,
            state: match checkpoint {
                Some(checkpoint) => checkpoint.state.resumed(settings, changes),
                None => TrainState::start(loader.cursor(), settings),
            },
            loader,
        })
    }

    /// Path of the newest checkpoint.
    pub(crate) fn latest_checkpoint(&self) -> Result<Option<PathBuf>> {
        self.checkpoints.latest()
    }

    /// Whether every step of the run is done.
    pub(crate) fn is_done(&self) -> bool {
        self.state.step >= self.run.train.steps
    }

    /// Tells the observer what is about to run.
    pub(crate) fn announce(&self, observer: &mut dyn Observer) -> Result<()> {
        observer.on_event(&TrainEvent::Started {
            resumed_from: self.resumed_from,
            total_steps: self.run.train.steps,
            parameters: self.files.config.num_parameters(),
            tokens_per_step: self.tokens_per_step(),
        })
    }

    /// One optimizer step, and the evaluation and the checkpoint that are due after it.
    pub(crate) fn step(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let began = Instant::now();
        let batch = self.loader.next().expect("training data does not end")?;
        let rows = TokenRows { tokens: &batch.tokens, documents: &batch.documents, seq: batch.seq };
        let (step, multiplier) = (self.state.step + 1, self.schedule.multiplier(self.state.step));
        let outcome = self.trainer.step(rows, multiplier, step)?;
        let tokens = batch.tokens.len() as u64;
        self.advance(outcome.loss, tokens);
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

    /// Moves the state past a finished step.
    fn advance(&mut self, loss: f64, tokens: u64) {
        self.state.step += 1;
        self.state.tokens += tokens;
        self.state.cursor = self.loader.cursor();
        self.state.last_loss = loss;
        if self.state.step == 1 {
            self.state.first_loss = loss;
        }
    }

    /// Evaluates and saves at their intervals, and after the last step.
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

    /// Writes a checkpoint. Non-finite weights are refused: no run could resume from them.
    fn save(&self, observer: &mut dyn Observer) -> Result<()> {
        for (name, weight) in self.trainer.params().iter() {
            if let Some(value) = first_non_finite(weight)? {
                self.expect_finite(&format!("weight `{name}`"), value)?;
            }
        }
        let path = self.checkpoints.save(&self.trainer, &self.state, &self.files)?;
        observer.on_event(&TrainEvent::Saved { step: self.state.step, path: &path })
    }

    /// Saves an interrupted run, and reports how it stands.
    pub(crate) fn finish(self, observer: &mut dyn Observer) -> Result<TrainSummary> {
        let interrupted = !self.is_done();
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

    fn tokens_per_step(&self) -> u64 {
        (self.run.train.batch_size * seq_len(self.run)) as u64
    }
}

/// Refuses periodic evaluation on data without a held-out split.
fn check_evaluation(run: &TrainRun, manifest: &Manifest) -> Result<()> {
    if run.train.eval_every == 0 || manifest.tokens(Split::Eval) > 0 {
        return Ok(());
    }
    let (path, field) = (run.path.clone(), "train.eval_every".to_owned());
    let expected =
        "0, since the data has no held-out sequences; or data built with a larger `eval_fraction`".to_owned();
    Err(Error::Config { path, field, expected, actual: run.train.eval_every.to_string() })
}

/// The checkpoint to resume from, if any.
///
/// # Errors
/// [`Error::RunExists`] where resuming would discard checkpoints of the run folder.
fn select_checkpoint(
    checkpoints: &Checkpoints,
    run_dir: &Path,
    resume: Resume,
) -> Result<Option<Checkpoint>> {
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

/// Trainer with the weights of the checkpoint, of `init_from`, or with random ones; the checkpoint brings the
/// optimizer's state too.
fn trainer(run: &TrainRun, config: &MptConfig, checkpoint: Option<&Checkpoint>) -> Result<Trainer> {
    let params = match (checkpoint, &run.init_from) {
        (Some(checkpoint), _) => checkpoint.params()?,
        (None, Some(dir)) => Params::load(&base_weights(dir)?, &Device::Cpu)?,
        (None, None) => Params::init(config, run.train.seed, &Device::Cpu)?,
    };
    let mut trainer = Trainer::new(config, params, &run.optimizer, &run.train)?;
    if let Some(checkpoint) = checkpoint {
        checkpoint.restore(&mut trainer)?;
    }
    Ok(trainer)
}

/// Weights of `init_from`; a run folder stands for its latest checkpoint.
pub(crate) fn base_weights(dir: &Path) -> Result<Weights> {
    Ok(Weights::open(&latest_checkpoint(dir)?.unwrap_or_else(|| dir.to_owned()))?)
}

/// First infinite or NaN value of a parameter.
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
