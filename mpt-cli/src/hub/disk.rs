//! Errors of the disk that stores the downloads: exit code 4, with a help line.

use std::io;
use std::path::Path;

use crate::exit::{CliError, ExitStatus};

/// Error of a file or folder that cannot be read or written.
pub(crate) fn io_error(path: &Path, source: io::Error) -> CliError {
    let help = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or choose another place with HF_HUB_CACHE or `--dir`; then run the same command again to \
             continue"
        }
        _ => "see that the folder can be written to, or choose another with HF_HUB_CACHE or `--dir`",
    };
    let error = anyhow::Error::new(source).context(format!("{}: cannot be read or written", path.display()));
    CliError::new(ExitStatus::System, error).help(help)
}

/// [`io_error`] of an error of [`mpt_data::durable`].
pub(crate) fn durable_error(failed: mpt_data::Error) -> CliError {
    match failed {
        mpt_data::Error::Io { path, source, .. } => io_error(&path, source),
        other => other.into(),
    }
}
