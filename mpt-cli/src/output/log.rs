//! Messages on stderr, by level, as text or JSON Lines.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use serde::Serialize;

use crate::common_args::{CommonArgs, LogFormat};
use crate::exit::{CliError, ExitStatus};

/// Log on stderr: messages by level, as text or JSON Lines, printed above the progress bars.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    format: LogFormat,
    quiet: bool,
    verbose: u8,
    color: bool,
    bars: Option<MultiProgress>,
}

impl Log {
    /// Log with the format and verbosity of the common flags.
    pub(super) fn new(args: &CommonArgs) -> Self {
        let terminal = io::stderr().is_terminal();
        let text = args.log_format == LogFormat::Text;
        Self {
            format: args.log_format,
            quiet: args.quiet,
            verbose: args.verbose,
            color: terminal && text && std::env::var_os("NO_COLOR").is_none(),
            bars: (terminal && text && !args.quiet).then(MultiProgress::new),
        }
    }

    /// Container of the terminal's progress bars; `None` if none are drawn.
    pub(crate) fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// Prints information, unless `--quiet`.
    pub(crate) fn info(&self, message: impl fmt::Display) {
        if !self.quiet {
            self.message(Level::Info, &message.to_string());
        }
    }

    /// Prints a warning, unless `--quiet`.
    pub(crate) fn warn(&self, message: impl fmt::Display) {
        if !self.quiet {
            self.message(Level::Warning, &message.to_string());
        }
    }

    /// Prints details with `-v`.
    pub(crate) fn debug(&self, message: impl fmt::Display) {
        if self.verbose >= 1 {
            self.message(Level::Debug, &message.to_string());
        }
    }

    /// Prints an event: `message` as text, `message` and `fields` as JSON.
    pub(crate) fn event(&self, message: impl fmt::Display, fields: &impl Serialize) {
        if self.quiet {
            return;
        }
        let message = message.to_string();
        match self.format {
            LogFormat::Text => self.message(Level::Info, &message),
            LogFormat::Json => {
                self.json_line(&LogRecord { level: "info", message: &message, fields: Some(fields) })
            }
        }
    }

    /// Prints the error of a command: message, causes and help.
    pub(crate) fn error(&self, error: &CliError) {
        if error.is_silent() {
            return;
        }
        if self.format == LogFormat::Json {
            return self.json_line(&error_record(error));
        }
        let mut text = format!("{} {error}", self.styled("1;31", "error:"));
        for cause in error.causes() {
            text += &format!("\n  caused by: {}", cause.replace('\n', "\n  "));
        }
        if let Some(help) = error.help_line() {
            text += &format!("\n{} {help}", self.styled("1;36", "help:"));
        }
        self.line(&text);
    }

    fn message(&self, level: Level, message: &str) {
        match (self.format, level) {
            (LogFormat::Json, _) => {
                self.json_line(&LogRecord { level: level.name(), message, fields: None::<&()> });
            }
            (LogFormat::Text, Level::Warning) => {
                self.line(&format!("{} {message}", self.styled("1;33", "warning:")));
            }
            (LogFormat::Text, _) => self.line(message),
        }
    }

    fn json_line(&self, record: &impl Serialize) {
        self.line(&serde_json::to_string(record).expect("log records have string keys"));
    }

    fn line(&self, line: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| write_stderr(line)),
            None => write_stderr(line),
        }
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.color { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Prints the help, or an error of the command line or of the environment `variable`.
pub(crate) fn print_usage(error: &clap::Error, variable: Option<&str>) -> ExitStatus {
    let asked = !error.use_stderr();
    let help = variable
        .map(|name| format!("the value is that of the environment variable {name}; change or unset it"));
    if !asked && wants_json_logs() {
        let text = error.render().to_string();
        let message = text.trim_end().trim_start_matches("error: ");
        let record =
            ErrorRecord { level: "error", exit_code: 2, message, causes: Vec::new(), help: help.as_deref() };
        write_stderr(&serde_json::to_string(&record).expect("log records have string keys"));
    } else {
        // A closed pipe is no error.
        let _ = error.print();
        help.into_iter().for_each(|help| write_stderr(&format!("help: {help}")));
    }
    if asked { ExitStatus::Done } else { ExitStatus::Usage }
}

/// Prints the message of a bug.
pub(crate) fn print_bug(message: &str, location: &str) {
    write_stderr(&format!(
        "bug: {message} ({location}); please report it with the command line and `mpt --version`"
    ));
}

/// Whether `--log-format json` is on the command line, which could not be parsed, or in the environment.
fn wants_json_logs() -> bool {
    let args: Vec<_> = std::env::args_os().collect();
    let flag = args.iter().any(|arg| arg == "--log-format=json")
        || args.windows(2).any(|pair| pair[0] == "--log-format" && pair[1] == "json");
    flag || std::env::var("MPT_LOG_FORMAT").is_ok_and(|format| format == "json")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Debug,
    Info,
    Warning,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
        }
    }
}

#[derive(Serialize)]
struct LogRecord<'a, F> {
    level: &'static str,
    message: &'a str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    fields: Option<&'a F>,
}

#[derive(Serialize)]
struct ErrorRecord<'a> {
    level: &'static str,
    exit_code: u8,
    message: &'a str,
    causes: Vec<String>,
    help: Option<&'a str>,
}

fn error_record(error: &CliError) -> impl Serialize {
    serde_json::json!(ErrorRecord {
        level: "error",
        exit_code: error.status() as u8,
        message: &error.to_string(),
        causes: error.causes(),
        help: error.help_line(),
    })
}

/// Unlike `eprintln!`, it does not panic if stderr is closed.
fn write_stderr(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_flat() {
        let record = LogRecord { level: "info", message: "m", fields: Some(&serde_json::json!({"step": 3})) };
        assert_eq!(
            serde_json::to_string(&record).expect("plain"),
            r#"{"level":"info","message":"m","step":3}"#
        );
    }
}
