//! `mpt completions`: shell completion scripts.

use clap_complete::Shell;

use crate::exit::{CliError, ExitStatus};
use crate::settings::Context;

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt completions bash > ~/.local/share/bash-completion/completions/mpt
  mpt completions zsh  > ~/.zfunc/_mpt
  mpt completions fish > ~/.config/fish/completions/mpt.fish")]
pub(crate) struct Args {
    /// The shell to write for
    shell: Shell,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::command_line(), "mpt", &mut script);
    ctx.out.bytes(&script)?;
    Ok(ExitStatus::Done)
}
