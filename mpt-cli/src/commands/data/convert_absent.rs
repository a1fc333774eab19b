//! `mpt data convert` in a build without the feature `interop`, which refuses it by name.

use std::ffi::OsString;

use crate::exit::CliError;
use crate::settings::Context;

/// Arguments of `mpt data convert`, whatever they are.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Not in this build, which is without the feature `interop`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(super) fn run(_args: &Args, _ctx: &Context) -> Result<(), CliError> {
    Err(mpt_data::Error::NotBuilt {
        what: "data of MosaicML Streaming and Megatron".to_owned(),
        feature: "interop",
        instead: "build it with that",
    }
    .into())
}
