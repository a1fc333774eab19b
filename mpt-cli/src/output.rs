//! Results on stdout. Messages on stderr are in `output/log.rs`; no other file prints.
//!
//! With `--json`, stdout holds exactly one JSON document, or JSON Lines if the command's contract says so, and no text.
//! A closed pipe (`| head`) ends the command quietly.

mod log;

pub(crate) use log::{Log, print_bug, print_usage};

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::common_args::CommonArgs;
use crate::exit::{CliError, ExitStatus};
use crate::table;

/// Standard output of a command.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    json_documents: usize,
    stdout: io::BufWriter<io::Stdout>,
    log: Log,
}

impl Output {
    /// Output with the format of the common flags.
    pub(crate) fn new(args: &CommonArgs) -> Self {
        let stdout = io::BufWriter::with_capacity(64 << 10, io::stdout());
        Self { json: args.json, json_documents: 0, stdout, log: Log::new(args) }
    }

    /// Log on stderr. It is cheap to clone and may be shared with threads.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Prints a line of text; nothing with `--json`.
    pub(crate) fn text(&mut self, line: impl fmt::Display) -> Result<(), CliError> {
        if self.json {
            return Ok(());
        }
        writeln!(self.stdout, "{line}").map_err(stdout_error)
    }

    /// Prints a table as text; nothing with `--json`.
    pub(crate) fn table(&mut self, header: &[&str], rows: &[Vec<String>]) -> Result<(), CliError> {
        table::lines(header, rows).iter().try_for_each(|line| self.text(line))
    }

    /// Prints the command's only JSON document; nothing without `--json`.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        if !self.json {
            return Ok(());
        }
        self.json_documents += 1;
        assert_eq!(self.json_documents, 1, "a command prints one document");
        self.json_line(value)
    }

    /// Prints a line of JSON, with and without `--json`: for commands whose output is JSON Lines.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        serde_json::to_writer(&mut self.stdout, value).map_err(|error| stdout_error(error.into()))?;
        self.stdout.write_all(b"\n").map_err(stdout_error)
    }

    /// Prints a chunk of text at once; nothing with `--json`.
    pub(crate) fn chunk(&mut self, text: &str) -> Result<(), CliError> {
        if self.json {
            return Ok(());
        }
        self.bytes(text.as_bytes())?;
        self.stdout.flush().map_err(stdout_error)
    }

    /// Prints bytes, with and without `--json`.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.stdout.write_all(bytes).map_err(stdout_error)
    }

    /// Flushes stdout. Called at the end of a command and before long work.
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        self.stdout.flush().map_err(stdout_error)
    }
}

/// Path as text for JSON. Bytes that are not UTF-8 become U+FFFD.
pub(crate) fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Serializer of a path field, by [`path_text`].
pub(crate) fn serialize_path<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path_text(path))
}

fn stdout_error(error: io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CliError::closed_output();
    }
    CliError::new(ExitStatus::System, anyhow::Error::new(error).context("standard output cannot be written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_stdout_is_silent_and_others_are_not() {
        assert!(stdout_error(io::ErrorKind::BrokenPipe.into()).is_silent());
        let full = stdout_error(io::ErrorKind::StorageFull.into());
        assert_eq!(full.status(), ExitStatus::System);
        assert!(!full.is_silent());
    }
}
