//! `mpt train`: pretraining and finetuning from a RUN.toml.

use std::path::PathBuf;

use mpt_data::Manifest;
use mpt_train::{Observer, Resume, TrainEvent, TrainRun, TrainSummary, train};

use crate::exit::{CliError, ExitStatus};
use crate::output::Log;
use crate::progress::{ProgressBar, Unit};
use crate::settings::Context;

/// Train a model from a RUN.toml; run again to continue
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt train run.toml
  mpt train run.toml --set train.steps=500 --set optimizer.lr=3e-4
  mpt train run.toml --resume run/checkpoints/step-00000500")]
pub(crate) struct Args {
    /// The run file
    run: PathBuf,
    /// Where to begin: `auto` (the latest checkpoint, if any), `never`, or a checkpoint folder
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    resume: PathBuf,
    /// Change a key of the run file
    #[arg(long = "set", value_name = "A.B=VALUE")]
    settings: Vec<String>,
    /// Print the whole run file with every default, and do nothing
    #[arg(long)]
    print_config: bool,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let mut run = TrainRun::from_file(&args.run, &args.settings)?;
    run.train.seed = ctx.seed.unwrap_or(run.train.seed);
    if args.print_config {
        let run = if mpt_data::remote::is_remote(&run.data.dir) || run.data.dir.exists() {
            run.clone().resolved(&Manifest::open(&run.data.dir)?)
        } else {
            run
        };
        ctx.out.bytes(run.to_toml().as_bytes())?;
        return Ok(ExitStatus::Done);
    }
    let resume = match args.resume.to_str() {
        Some("auto") => Resume::Auto,
        Some("never") => Resume::Never,
        _ => Resume::From(args.resume),
    };
    let summary = train_with_progress(&run, resume, ctx)?;
    let outcome = if summary.interrupted { "interrupted" } else { "done" };
    ctx.out.text(format_args!(
        "{outcome} after step {}: loss {:.4}, was {:.4}",
        summary.step, summary.last_loss, summary.first_loss
    ))?;
    if let Some(loss) = summary.eval_loss {
        ctx.out.text(format_args!("held-out loss {loss:.4}, perplexity {:.2}", loss.exp()))?;
    }
    ctx.out.text(format_args!("checkpoint {}", summary.checkpoint.display()))?;
    ctx.out.json(&summary)?;
    Ok(if summary.interrupted { ExitStatus::Interrupted } else { ExitStatus::Done })
}

/// Trains with a progress bar.
pub(crate) fn train_with_progress(
    run: &TrainRun,
    resume: Resume,
    ctx: &Context,
) -> Result<TrainSummary, CliError> {
    let mut progress = TrainProgress { log: ctx.out.log().clone(), bar: None };
    let summary = train(run, resume, &mut progress, ctx.stop());
    if let Some(bar) = progress.bar.take() {
        bar.finish();
    }
    Ok(summary?)
}

struct TrainProgress {
    log: Log,
    bar: Option<ProgressBar>,
}

impl Observer for TrainProgress {
    fn on_event(&mut self, event: &TrainEvent<'_>) -> mpt_train::Result<()> {
        match event {
            TrainEvent::Started { resumed_from, total_steps, parameters, tokens_per_step } => {
                let (log, millions) = (&self.log, *parameters as f64 / 1e6);
                log.info(format_args!(
                    "{millions:.1} M parameters, {tokens_per_step} tokens a step, {total_steps} steps"
                ));
                let mut bar = ProgressBar::start(log, "train", Unit::Count("steps"), Some(*total_steps));
                if let Some(step) = resumed_from {
                    match step < total_steps {
                        true => log.info(format_args!("continuing after step {step}")),
                        false => log.info("this run is done; to go on, raise `train.steps`"),
                    }
                    bar.resume_at(*step);
                }
                self.bar = Some(bar);
            }
            TrainEvent::Step(metrics) => {
                if let Some(bar) = &mut self.bar {
                    bar.note(format!("loss {:.3}, {:.0} tokens/s", metrics.loss, metrics.tokens_per_second));
                    bar.set(metrics.step);
                }
            }
            TrainEvent::Evaluated { step, loss, .. } => {
                self.log.info(format_args!("step {step}: held-out loss {loss:.4}"));
            }
            TrainEvent::Saved { step, path } => {
                self.log.debug(format_args!("step {step}: saved {}", path.display()))
            }
            _ => {}
        }
        Ok(())
    }
}
