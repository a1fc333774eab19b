//! Exit codes of `mpt`, and the error that carries one.

use std::fmt;
use std::process::ExitCode;

use mpt_infer::TokenizerProblem;

use crate::help;

/// Exit code of a command, as the command-line contract numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// Done.
    Done = 0,
    /// A check that was asked for came out negative.
    Negative = 1,
    /// The command line or a run file is wrong.
    Usage = 2,
    /// Data or weights are unusable.
    Data = 3,
    /// The device, memory, disk or port failed.
    System = 4,
    /// The loss is not finite.
    NotFinite = 5,
    /// A bug in `mpt`.
    Bug = 70,
    /// Interrupted; state is saved.
    Interrupted = 130,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// Error of a command: message, causes, exit code, and a remedy.
#[derive(Debug)]
pub(crate) struct CliError {
    status: ExitStatus,
    error: anyhow::Error,
    help: Option<String>,
}

impl CliError {
    /// The command line or a run file is wrong: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitStatus::Usage, anyhow::Error::msg(message.into()))
    }

    /// Data or weights are unusable: exit code 3.
    pub(crate) fn data(message: impl Into<String>) -> Self {
        Self::new(ExitStatus::Data, anyhow::Error::msg(message.into()))
    }

    /// The device, memory, disk or port failed: exit code 4.
    pub(crate) fn system(message: impl Into<String>) -> Self {
        Self::new(ExitStatus::System, anyhow::Error::msg(message.into()))
    }

    /// An error with a cause chain of its own.
    pub(crate) fn new(status: ExitStatus, error: impl Into<anyhow::Error>) -> Self {
        Self { status, error: error.into(), help: None }
    }

    /// The same error with a line that says what to do next.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// An input file that cannot be read: exit code `status`, usually 2 for run files and 3 for data.
    pub(crate) fn read(status: ExitStatus, path: &std::path::Path, source: std::io::Error) -> Self {
        let error = anyhow::Error::new(source).context(format!("{}: cannot be read", path.display()));
        Self::new(status, error)
    }

    /// Standard output went away, as in `mpt data cat … | head`: no failure of ours, so nothing is said.
    pub(crate) fn closed_output() -> Self {
        Self::new(ExitStatus::Done, anyhow::Error::msg("standard output was closed"))
    }

    /// The exit code.
    pub(crate) fn status(&self) -> ExitStatus {
        self.status
    }

    /// Whether there is anything to tell.
    pub(crate) fn is_silent(&self) -> bool {
        self.status == ExitStatus::Done
    }

    /// What to do next, where known.
    pub(crate) fn help_line(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Causes of the error, nearest first, without those that a message above already quotes.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut shown = vec![self.error.to_string()];
        for cause in self.error.chain().skip(1) {
            let text = mpt_core::quoted(&cause.to_string());
            if !shown.iter().any(|above| above.contains(&text)) {
                shown.push(text);
            }
        }
        shown.split_off(1)
    }
}

/// Refuses an infinite or NaN result: exit code 5.
pub(crate) fn expect_finite(what: &str, value: f64) -> Result<(), CliError> {
    if value.is_finite() {
        return Ok(());
    }
    let message = format!("{what} is {value}; the weights are damaged, or the training diverged");
    Err(CliError::new(ExitStatus::NotFinite, anyhow::Error::msg(message)).help(
        "`mpt verify` says which weights are no numbers; fetch them again, or take an older checkpoint",
    ))
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)
    }
}

impl From<mpt_core::ErrorKind> for ExitStatus {
    fn from(kind: mpt_core::ErrorKind) -> Self {
        use mpt_core::ErrorKind as K;
        match kind {
            K::Usage => Self::Usage,
            K::Data => Self::Data,
            K::System => Self::System,
            K::NotFinite => Self::NotFinite,
            K::Interrupted => Self::Interrupted,
            K::Bug => Self::Bug,
        }
    }
}

impl From<mpt_data::ErrorKind> for ExitStatus {
    fn from(kind: mpt_data::ErrorKind) -> Self {
        use mpt_data::ErrorKind as K;
        match kind {
            K::Usage => Self::Usage,
            K::Data => Self::Data,
            K::System => Self::System,
            K::Interrupted => Self::Interrupted,
            K::Bug => Self::Bug,
        }
    }
}

impl From<mpt_core::Error> for CliError {
    fn from(error: mpt_core::Error) -> Self {
        let help = help::of_model(&error);
        Self { help, ..Self::new(error.kind().into(), error) }
    }
}

impl From<mpt_data::Error> for CliError {
    fn from(error: mpt_data::Error) -> Self {
        let help = help::of_data(&error);
        Self { help, ..Self::new(error.kind().into(), error) }
    }
}

impl From<mpt_tokenize::Error> for CliError {
    fn from(error: mpt_tokenize::Error) -> Self {
        Self::new(error.kind().into(), error)
    }
}

impl From<mpt_infer::Error> for CliError {
    fn from(error: mpt_infer::Error) -> Self {
        use mpt_infer::Error as E;
        match error {
            E::Model(error) => error.into(),
            E::Text(error) => error.into(),
            E::Tokenizer { problem } => problem.into(),
            error => {
                let help = help::of_text(&error);
                Self { help, ..Self::new(error.kind().into(), error) }
            }
        }
    }
}

impl From<TokenizerProblem> for CliError {
    fn from(problem: TokenizerProblem) -> Self {
        let (status, help) = (problem.kind().into(), problem.remedy());
        Self::new(status, problem).help(help)
    }
}

impl From<mpt_train::Error> for CliError {
    fn from(error: mpt_train::Error) -> Self {
        use mpt_train::Error as E;
        match error {
            E::Model(error) => error.into(),
            E::Data(error) => error.into(),
            E::Tokenizer(error) => error.into(),
            error => {
                let help = help::of_training(&error);
                Self { help, ..Self::new(error.kind().into(), error) }
            }
        }
    }
}

impl From<candle_core::Error> for CliError {
    fn from(error: candle_core::Error) -> Self {
        Self::new(mpt_core::ErrorKind::from(&error).into(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_already_quoted_are_not_repeated() {
        let source = std::io::Error::other("disk on fire");
        let error = mpt_core::Error::Io { path: "x".into(), action: "reading", source };
        assert_eq!(CliError::from(error).causes(), Vec::<String>::new());
    }

    #[test]
    fn the_network_is_the_systems_and_shapes_are_a_bug() {
        let network =
            mpt_data::Error::Remote { url: "s3://b/a".into(), problem: "no answer".into(), source: None };
        assert_eq!(CliError::from(network).status(), ExitStatus::System);
        let missing = mpt_data::Error::NoObject { url: "s3://b/a".into() };
        assert_eq!(CliError::from(mpt_train::Error::from(missing)).status(), ExitStatus::Data);
        let shapes = candle_core::Error::ShapeMismatch { buffer_size: 1, shape: 2.into() };
        assert_eq!(CliError::from(mpt_infer::Error::from(shapes)).status(), ExitStatus::Bug);
    }
}
