//! Training run: from the run file to its last checkpoint, over any number of interruptions.

use std::sync::atomic::{AtomicBool, Ordering};

use mpt_core::MptConfig;
use mpt_data::{Manifest, durable};
use mpt_tokenize::Tokenizer;

use crate::error::{Error, Result};
use crate::observer::{Observer, TrainSummary};
use crate::run::{Resume, TrainRun};
use crate::session::{Session, base_weights};

/// Lock file of a run folder: one process trains in it at a time.
const LOCK: &str = ".lock";

/// Trains until the last step is done or `stop` is set. The last checkpoint then holds the whole state.
///
/// Run file, data and seed decide every byte of a checkpoint; the number of threads and of interruptions does not. A
/// finished run returns at once.
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
    let mut session = Session::begin(&run, &manifest, &tokenizer, &config, resume)?;
    session.announce(observer)?;
    while !session.is_done() && !stop.load(Ordering::Relaxed) {
        if let Err(error) = session.step(observer) {
            return Err(error.with_checkpoint(session.latest_checkpoint()?));
        }
    }
    let latest = session.latest_checkpoint()?;
    session.finish(observer).map_err(|error| error.with_checkpoint(latest))
}

/// Tokenizer stored with the data, compared with the fingerprint in the manifest.
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

/// Configuration of the model: that of `[model]`, or of the weights in `init_from`.
fn model_config(run: &TrainRun) -> Result<MptConfig> {
    match (&run.model, &run.init_from) {
        (Some(config), _) => Ok(config.clone()),
        (None, Some(dir)) => Ok(base_weights(dir)?.config().clone()),
        (None, None) => unreachable!("the run file was checked"),
    }
}

/// Refuses a model with fewer ids than the tokenizer of the data.
fn check_vocab(run: &TrainRun, config: &MptConfig, manifest: &Manifest) -> Result<()> {
    let needed = manifest.plan().vocab_size;
    if config.vocab_size >= needed {
        return Ok(());
    }
    let (path, field, actual) = (run.path.clone(), "model.vocab_size".into(), config.vocab_size.to_string());
    let expected = format!("{needed} or more, the number of ids of the data's tokenizer");
    Err(Error::Config { path, field, expected, actual })
}
