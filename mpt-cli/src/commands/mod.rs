//! Commands, a file each. The list holds no command that does not exist.

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

/// Declares [`Command`] and its dispatch from lines `module => Variant`, in the order of the help.
macro_rules! commands {
    ($($module:ident => $variant:ident,)+) => {
        /// Command with its arguments.
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
