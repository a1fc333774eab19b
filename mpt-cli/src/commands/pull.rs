//! `mpt pull`: download of a model from the Hugging Face hub.

use std::path::PathBuf;

use crate::exit::{CliError, ExitStatus};
use crate::hub::{self, PullOptions, RepoId, Revision};
use crate::settings::Context;

/// Download a model from the Hugging Face hub: configuration, tokenizer and weights; run again to continue
///
/// Files go to the cache that Python's `huggingface_hub` uses too, and what is there is not downloaded again. Every
/// file is checked against its hash. Weights are taken as safetensors, else as pytorch_model*.bin, else as GGUF; code
/// never. Prints the folder that `--model` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Environment: HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, \
HF_HUB_DOWNLOAD_TIMEOUT, SSL_CERT_FILE\n\nExamples:\n  mpt pull mosaicml/mpt-7b\n  \
mpt pull mosaicml/mpt-7b --revision main --dir mpt-7b\n  \
mpt generate --model \"$(mpt pull mosaicml/mpt-7b)\" --prompt Hello")]
pub(crate) struct Args {
    /// Repository, such as `mosaicml/mpt-7b`
    repo: RepoId,
    /// Branch, tag or commit
    #[arg(long, value_name = "REVISION", default_value = "main")]
    revision: Revision,
    /// Put plain files into this folder instead of the shared cache; files that differ are replaced
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let options = PullOptions { repo: args.repo, revision: args.revision, dir: args.dir };
    let snapshot = hub::pull(&options, ctx.out.log(), ctx.stop())?;
    ctx.out.text(snapshot.path.display())?;
    ctx.out.json(&snapshot)?;
    Ok(ExitStatus::Done)
}
