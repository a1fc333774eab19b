//! The list of commands: one file each, one line each. Only what exists is listed.

use crate::exit::{CliError, ExitStatus};
use crate::settings::Context;

mod bench;
mod completions;
mod convert;
mod data;
mod eval;
mod generate;
mod grad;
mod info;
mod init;
mod merge;
mod pull;
mod quantize;
mod quickstart;
mod score;
mod steps;
mod tokenizer;
mod train;
mod verify;

commands! {
    quickstart => Quickstart,
    pull => Pull,
    tokenizer => Tokenizer,
    data => Data,
    train => Train,
    eval => Eval,
    generate => Generate,
    score => Score,
    grad => Grad,
    steps => Steps,
    init => Init,
    convert => Convert,
    quantize => Quantize,
    merge => Merge,
    verify => Verify,
    info => Info,
    bench => Bench,
    completions => Completions,
}

/// Builds [`Command`] and its dispatch from lines `module => Variant`; the order is that of the help.
macro_rules! commands {
    ($($module:ident => $variant:ident,)+) => {
        /// What was asked for, with its own arguments.
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum Command {
            $(#[allow(missing_docs)] $variant($module::Args),)+
        }

        impl Command {
            /// Runs the command.
            pub(crate) fn run(self, ctx: &mut Context) -> Result<ExitStatus, CliError> {
                match self {
                    $(Self::$variant(args) => $module::run(args, ctx),)+
                }
            }
        }
    };
}
use commands;
