//! `mpt steps`: optimizer steps on given batches, to compare the numerics of training.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use mpt_core::{Params, Precision, write_safetensors};
use mpt_train::{OptimizerConfig, StepConfig, StepOutcome, TokenRows, Trainer};

use crate::commands::score::{expect_finite_values, read_json};
use crate::exit::{CliError, ExitStatus};
use crate::export;
use crate::model_args::ModelArgs;
use crate::output::path_text;
use crate::progress::{DelayedProgressBar, Unit};
use crate::settings::Context;

/// Take optimizer steps on given batches and write losses, gradient norms and the final weights
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt steps --model mpt-125m --batches-file batches.json --optimizer lion --lr 3e-4 --betas 0.9,0.99 \\
    --weight-decay 0 --clip-norm 1 --out steps.safetensors
  mpt steps --model mpt-125m --batches-file batches.json --optimizer adamw --lr 2e-3 --betas 0.9,0.95 \\
    --eps 1e-8 --weight-decay 2e-4 --clip-norm 1 --out steps.safetensors

A step computes the loss and its gradient, clips the gradient, takes the decay off every parameter
(p *= 1 - W, whatever the rate), and then updates it. Rows go through the model one at a time.")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids as JSON, `[steps][batch][seq]`, all rows equally long; each id is the label of the one before
    #[arg(long, value_name = "FILE")]
    batches_file: PathBuf,
    /// The optimizer
    #[arg(long, value_name = "NAME")]
    optimizer: OptimizerName,
    /// Learning rate of every step
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    lr: f64,
    /// Decay of the moments, two numbers
    #[arg(long, value_name = "A,B", value_delimiter = ',', allow_hyphen_values = true)]
    betas: Vec<f64>,
    /// Added to the root of AdamW's second moment [default: 1e-8]
    #[arg(long, value_name = "E", allow_hyphen_values = true)]
    eps: Option<f64>,
    /// Share of each parameter taken away at every step
    #[arg(long, value_name = "W", allow_hyphen_values = true)]
    weight_decay: f64,
    /// Bound on the norm of the whole gradient; 0 for none
    #[arg(long, value_name = "C", allow_hyphen_values = true)]
    clip_norm: f64,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Optimizer, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OptimizerName {
    Adamw,
    Lion,
}

impl Args {
    /// Optimizer with checked hyperparameters.
    fn optimizer(&self) -> Result<OptimizerConfig, CliError> {
        let rate = |x: f64| x.is_finite() && x >= 0.0;
        let share = |x: f64| (0.0..=1.0).contains(&x);
        expect("--lr", self.lr, rate(self.lr), "a finite number, 0 or more")?;
        expect("--weight-decay", self.weight_decay, share(self.weight_decay), "between 0 and 1")?;
        expect("--clip-norm", self.clip_norm, rate(self.clip_norm), "a finite number, 0 or more")?;
        let &[beta1, beta2] = self.betas.as_slice() else {
            let message =
                format!("--betas: has {} numbers, expected two, such as 0.9,0.99", self.betas.len());
            return Err(CliError::usage(message));
        };
        for beta in [beta1, beta2] {
            expect("--betas", beta, (0.0..1.0).contains(&beta), "0 or more and below 1")?;
        }
        let (lr, betas, weight_decay) = (self.lr, [beta1, beta2], self.weight_decay);
        match (self.optimizer, self.eps) {
            (OptimizerName::Lion, None) => Ok(OptimizerConfig::Lion { lr, betas, weight_decay }),
            (OptimizerName::Lion, Some(_)) => Err(CliError::usage("--eps: lion has none; leave it out")),
            (OptimizerName::Adamw, eps) => {
                let eps = eps.unwrap_or(1e-8);
                expect("--eps", eps, eps.is_finite() && eps > 0.0, "a finite number above 0")?;
                Ok(OptimizerConfig::AdamW { lr, betas, eps, weight_decay })
            }
        }
    }
}

fn expect(flag: &str, value: f64, holds: bool, expected: &str) -> Result<(), CliError> {
    if holds { Ok(()) } else { Err(CliError::usage(format!("{flag}: is {value}, expected {expected}"))) }
}

/// Rows of ids of one step, `[batch][seq]`.
type IdRows = Vec<Vec<u32>>;

/// Reads the batches and checks their shapes and ids.
fn read_batches(path: &Path, vocab_size: usize) -> Result<Vec<IdRows>, CliError> {
    let batches: Vec<IdRows> = read_json(path)?;
    let fail = |problem: String| Err(CliError::data(format!("{}: {problem}", path.display())));
    let seq = batches.first().and_then(|batch| batch.first()).map_or(0, Vec::len);
    if seq < 2 || batches.iter().any(Vec::is_empty) {
        return fail("expected one or more batches of one or more rows of two or more ids".to_owned());
    }
    for (step, batch) in batches.iter().enumerate() {
        for (number, row) in batch.iter().enumerate() {
            if row.len() != seq {
                let found = format!("batch {step}, row {number} has {} ids", row.len());
                return fail(format!("{found}, expected {seq} as in the first row"));
            }
            if let Some(at) = row.iter().position(|&id| id as usize >= vocab_size) {
                let found = format!("batch {step}, row {number}, position {at} is id {}", row[at]);
                return fail(format!("{found}, expected one below vocab_size {vocab_size}"));
            }
        }
    }
    Ok(batches)
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let optimizer = args.optimizer()?;
    export::refuse_input(&args.out, [args.model.model.as_path()], &[args.batches_file.as_path()])?;
    let output = export::Replacement::begin(&args.out)?;
    let weights = args.model.weights(ctx)?;
    let batches = read_batches(&args.batches_file, weights.config().vocab_size)?;
    let params = Params::load(&weights, &ctx.device)?;
    let config = step_config(&args, &batches);
    let mut trainer = Trainer::new(weights.config(), params, &optimizer, &config)?;
    let outcomes = take_steps(&mut trainer, &batches, ctx)?;
    for (name, weight) in trainer.params().iter() {
        expect_finite_values(&format!("weight `{name}` after the last step"), weight)?;
    }
    write(output.path(), &outcomes, trainer.params())?;
    output.commit()?;
    for (step, outcome) in (1..).zip(&outcomes) {
        let StepOutcome { loss, grad_norm } = outcome;
        ctx.out.text(format_args!("step {step}: loss {loss:.6}, gradient norm {grad_norm:.6}"))?;
    }
    let losses: Vec<f64> = outcomes.iter().map(|outcome| outcome.loss).collect();
    let grad_norms: Vec<f64> = outcomes.iter().map(|outcome| outcome.grad_norm).collect();
    ctx.out.json(&serde_json::json!({
        "out": path_text(&args.out), "steps": outcomes.len(), "losses": losses, "grad_norms": grad_norms,
    }))?;
    Ok(ExitStatus::Done)
}

/// Microbatches of one row with activation checkpointing: the least memory.
fn step_config(args: &Args, batches: &[IdRows]) -> StepConfig {
    StepConfig {
        steps: batches.len() as u64,
        batch_size: batches[0].len(),
        microbatch_size: Some(1),
        clip_norm: args.clip_norm,
        seed: 0,
        precision: Precision::F32,
        activation_checkpointing: Some(true),
        eval_every: 0,
        eval_samples: None,
    }
}

/// Takes a step per batch at a constant learning rate.
fn take_steps(
    trainer: &mut Trainer,
    batches: &[IdRows],
    ctx: &Context,
) -> Result<Vec<StepOutcome>, CliError> {
    let mut bar = DelayedProgressBar::new(ctx.out.log(), "steps", Unit::Count("steps"), batches.len() as u64);
    let mut outcomes = Vec::with_capacity(batches.len());
    for (step, batch) in (1..).zip(batches) {
        let tokens = batch.concat();
        let documents = vec![0; tokens.len()];
        let rows = TokenRows { tokens: &tokens, documents: &documents, seq: batch[0].len() };
        outcomes.push(trainer.step(rows, 1.0, step)?);
        bar.advance(1);
    }
    bar.finish();
    Ok(outcomes)
}

/// Writes `losses` and `grad_norms` `[steps]`, and every weight under its checkpoint name.
fn write(path: &Path, outcomes: &[StepOutcome], params: &Params) -> Result<(), CliError> {
    let column = |value: fn(&StepOutcome) -> f64| {
        let values: Vec<f32> = outcomes.iter().map(|outcome| value(outcome) as f32).collect();
        Tensor::from_vec(values, outcomes.len(), &Device::Cpu)
    };
    let (losses, grad_norms) = (column(|outcome| outcome.loss)?, column(|outcome| outcome.grad_norm)?);
    let mut tensors = vec![("losses", &losses), ("grad_norms", &grad_norms)];
    tensors.extend(params.iter().map(|(name, var)| (name, var.as_tensor())));
    Ok(write_safetensors(path, tensors.into_iter())?)
}
