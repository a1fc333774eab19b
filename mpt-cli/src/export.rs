//! Model export: a Hugging Face folder or a GGUF file, written completely or not at all.

mod text_metadata;

use std::fs;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use mpt_core::weights::GgufWriter;
use mpt_core::{
    ConvertOptions, ConvertedModel, MptConfig, WeightDtype, Weights, config_json, write_gguf, write_hf,
    write_random_init,
};
use mpt_data::durable::{self, Staging};
use mpt_infer::tokenizer_of;
use serde_json::{Map, Value, json};

use self::text_metadata::TextMetadata;
use crate::exit::{CliError, ExitStatus};
use crate::output::path_text;
use crate::progress::{ProgressBar, Unit, format_amount};
use crate::settings::Context;

/// Files that are copied along with the weights.
const COMPANIONS: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// Writes a folder that transformers reads. It gets its name once it is complete. `task` names the progress bar.
pub(crate) fn write_folder(
    weights: &Weights,
    out: &Path,
    options: &ConvertOptions<'_>,
    task: &'static str,
    ctx: &Context,
) -> Result<ConvertedModel, CliError> {
    let staging = Staging::folder(out)?;
    warn_of_ignored_keys(weights, ctx);
    let mut converted = with_progress(task, weights.config(), ctx, |on_bytes| {
        write_hf(weights, staging.path(), options, on_bytes)
    })?;
    let source = source_config(weights)?;
    let config = config_json(weights.config(), &converted, Some(&source));
    write(&staging.path().join("config.json"), config.as_bytes())?;
    copy_companions(weights, staging.path(), ctx)?;
    staging.commit()?;
    set_file_paths(&mut converted, out);
    Ok(converted)
}

/// Writes the folder of a randomly initialized model. It gets its name once it is complete.
pub(crate) fn random_init(
    config: &MptConfig,
    seed: u64,
    out: &Path,
    options: &ConvertOptions<'_>,
    ctx: &Context,
) -> Result<ConvertedModel, CliError> {
    let staging = Staging::folder(out)?;
    let mut converted = with_progress("draw", config, ctx, |on_bytes| {
        write_random_init(config, seed, staging.path(), options, on_bytes)
    })?;
    let text = config_json(config, &converted, None);
    write(&staging.path().join("config.json"), text.as_bytes())?;
    staging.commit()?;
    set_file_paths(&mut converted, out);
    Ok(converted)
}

/// Moves the paths in `converted` from the staging folder to `out`.
fn set_file_paths(converted: &mut ConvertedModel, out: &Path) {
    for file in &mut converted.files {
        *file = out.join(file.file_name().expect("a weights file has a name"));
    }
}

/// Writes a model with its tokenizer as a GGUF file. It gets its name once it is complete. `task` names the progress
/// bar. If the model has no usable tokenizer, a warning is printed and the file holds the weights alone.
pub(crate) fn write_gguf_file(
    weights: &Weights,
    out: &Path,
    options: &ConvertOptions<'_>,
    task: &'static str,
    ctx: &Context,
) -> Result<ConvertedModel, CliError> {
    let staging = Staging::file(out)?;
    let text_metadata = TextMetadata::of(weights, ctx)?;
    let name = weights.path().file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut describe = |header: &mut GgufWriter| text_metadata.write(header);
    let mut converted = with_progress(task, weights.config(), ctx, |on_bytes| {
        write_gguf(weights, staging.path(), &name, options, &mut describe, on_bytes)
    })?;
    staging.commit()?;
    converted.files = vec![out.to_owned()];
    Ok(converted)
}

/// Prints a summary as text.
pub(crate) fn print_summary(
    out: &Path,
    converted: &ConvertedModel,
    ctx: &mut Context,
) -> Result<(), CliError> {
    let size = format_amount(Unit::Bytes, converted.bytes);
    ctx.out.text(format_args!("{}: {size} of {}", out.display(), dtypes(converted)))
}

/// Dtypes of the matrices, the most frequent first.
pub(crate) fn dtypes(converted: &ConvertedModel) -> String {
    let names: Vec<_> = converted.matrix_dtypes().into_iter().map(WeightDtype::name).collect();
    names.join(" and ")
}

/// A file that is written in place of one that may be there, by one process at a time and whole or not at all; a pipe or a
/// device is written as it is.
pub(crate) enum Replacement {
    /// A file in the making.
    Staged(Staging),
    /// What is no file.
    Special(PathBuf),
}

impl Replacement {
    /// Takes the place.
    pub(crate) fn begin(out: &Path) -> Result<Self, CliError> {
        if out.exists() && !out.is_file() && !out.is_dir() {
            return Ok(Self::Special(out.to_owned()));
        }
        Ok(Self::Staged(Staging::replacement(out)?))
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Staged(staging) => staging.path(),
            Self::Special(path) => path,
        }
    }

    /// Gives the file its name.
    pub(crate) fn commit(self) -> Result<(), CliError> {
        match self {
            Self::Staged(staging) => Ok(staging.commit()?),
            Self::Special(_) => Ok(()),
        }
    }
}

/// Refuses an `out` that is one of the `inputs`, a file of the `models`, or in a folder of theirs.
pub(crate) fn refuse_input<'a>(
    out: &Path,
    models: impl IntoIterator<Item = &'a Path>,
    inputs: &[&Path],
) -> Result<(), CliError> {
    let Ok(target) = fs::canonicalize(out) else { return Ok(()) };
    let is_target = |input: &Path| fs::canonicalize(input).is_ok_and(|input| input == target);
    let is_in_folder =
        |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| is_target(&entry.path()));
    let mut is_read = inputs.iter().any(|input| is_target(input));
    for model in models {
        let model = mpt_infer::model_path(model)?;
        is_read |= is_target(&model) || is_in_folder(&model);
    }
    if is_read {
        let message = format!("{}: this is a file that the command reads", out.display());
        return Err(CliError::usage(message).help("name another place to write to"));
    }
    Ok(())
}

/// Summary as JSON.
pub(crate) fn summary_json(out: &Path, converted: &ConvertedModel) -> Value {
    let ConvertedModel { files, dtype, bytes, .. } = converted;
    let dtypes: Vec<_> = converted.matrix_dtypes().into_iter().map(WeightDtype::name).collect();
    let files: Vec<_> = files.iter().map(|file| path_text(file)).collect();
    let dtype = dtypes.first().copied().unwrap_or(dtype.name());
    json!({ "path": path_text(out), "dtype": dtype, "dtypes": dtypes, "bytes": bytes, "files": files })
}

/// Runs `work` with a progress bar over tensors. An interrupt ends it between two tensors.
fn with_progress(
    name: &'static str,
    config: &MptConfig,
    ctx: &Context,
    work: impl FnOnce(mpt_core::convert::OnBytes<'_>) -> mpt_core::Result<ConvertedModel>,
) -> Result<ConvertedModel, CliError> {
    let tensors = config.parameter_shapes().len() as u64;
    let mut bar = ProgressBar::start(ctx.out.log(), name, Unit::Count("tensors"), Some(tensors));
    let stop = ctx.stop();
    let converted = work(&mut |_| {
        bar.advance(1);
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    bar.finish();
    Ok(converted)
}

fn warn_of_ignored_keys(weights: &Weights, ctx: &Context) {
    let ignored = weights.config().ignored_by_transformers();
    if !ignored.is_empty() {
        let keys = ignored.join(", ");
        ctx.out.log().warn(format_args!("transformers' MPT ignores {keys} and will compute something else"));
    }
}

/// Configuration of the source, for keys beyond those of the model, such as the end-of-text ids.
fn source_config(weights: &Weights) -> Result<Map<String, Value>, CliError> {
    if let Some(metadata) = weights.metadata() {
        let ids = ["bos", "eos"].into_iter().filter_map(|name| {
            let id = metadata.int(&format!("tokenizer.ggml.{name}_token_id"))?;
            Some((format!("{name}_token_id"), json!(id)))
        });
        return Ok(ids.collect());
    }
    let path = weights.path().join("config.json");
    let text = fs::read_to_string(&path).map_err(|error| CliError::read(ExitStatus::Data, &path, error))?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

/// Copies the [`COMPANIONS`], or writes the tokenizer of a GGUF file as tokenizer.json.
fn copy_companions(weights: &Weights, out: &Path, ctx: &Context) -> Result<(), CliError> {
    if weights.metadata().is_some() {
        return match tokenizer_of(weights) {
            Ok(tokenizer) => write(&out.join("tokenizer.json"), tokenizer.json_bytes()),
            Err(problem) => {
                let log = ctx.out.log();
                log.warn(format_args!("{problem}; the folder is written without a tokenizer.json"));
                Ok(())
            }
        };
    }
    for name in COMPANIONS {
        let from = weights.path().join(name);
        match fs::read(&from) {
            Ok(bytes) => write(&out.join(name), &bytes)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(CliError::read(ExitStatus::Data, &from, error)),
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    Ok(durable::write_file(path, bytes)?)
}
