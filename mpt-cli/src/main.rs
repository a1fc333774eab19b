//! The `mpt` binary: parses the command line, dispatches, and returns the exit code. Commands live in
//! `commands/<name>.rs`.
//!
//! # Adding a command
//!
//! 1. Write `src/commands/<name>.rs` with
//!
//!    ```text
//!    /// What it does, in one line: the help shows it in the list of commands.
//!    #[derive(Debug, clap::Args)]
//!    #[command(after_help = "Examples:\n  mpt <name> …")]
//!    pub(crate) struct Args { … }
//!
//!    pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> { … }
//!    ```
//!
//! 2. Add two lines to `src/commands/mod.rs`: `mod <name>;`, and the name's line in `commands!`.
//!
//! A command reads the common flags through [`Context`] (`device`, `seed`, `stop`), prints through `ctx.out` alone
//! ([`output::Output`]), shows long work with [`progress::ProgressBar`], and returns library errors with `?`:
//! [`exit::CliError`] knows the exit code of each. It never prints, exits or panics by itself.

mod allocator;
mod bus_error;
mod commands;
mod common_args;
mod dtype_args;
mod embed;
mod exit;
mod export;
mod flag_env;
mod help;
mod hub;
mod interrupt;
mod machine;
mod model_args;
mod output;
mod progress;
mod report;
mod settings;
mod table;

use clap::Parser;

use crate::commands::Command;
use crate::common_args::CommonArgs;
use crate::exit::{CliError, ExitStatus};
use crate::output::Output;
use crate::settings::Context;

/// Prepare data for MPT language models, train them, and run them.
#[derive(Debug, Parser)]
#[command(name = "mpt", version, arg_required_else_help = true, max_term_width = 110)]
#[command(after_help = "New here? `mpt quickstart` goes the whole way on this machine, with no download.")]
struct Cli {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: Command,
}

fn main() -> std::process::ExitCode {
    allocator::keep_freed_pages();
    interrupt::install_panic_hook();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let variable = flag_env::rejected_variable(&error, &command_line());
            return output::print_usage(&error, variable.as_deref()).into();
        }
    };
    let out = Output::new(&cli.common);
    let log = out.log().clone();
    let status = match run(cli, out) {
        Ok(status) => status,
        Err(error) => {
            log.error(&error);
            error.status()
        }
    };
    status.into()
}

fn run(cli: Cli, out: Output) -> Result<ExitStatus, CliError> {
    bus_error::install(cli.common.log_format);
    let mut ctx = Context::new(&cli.common, out)?;
    let status = cli.command.run(&mut ctx)?;
    ctx.out.flush()?;
    Ok(status)
}

/// Command line as clap sees it, for completions and tests.
fn command_line() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command_line().debug_assert();
    }
}
