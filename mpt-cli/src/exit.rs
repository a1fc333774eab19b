//! How `mpt` ends: exit codes, and the error that carries one.

use std::fmt;
use std::process::ExitCode;

use mpt_infer::TokenizerProblem;

/// How a command ended; the numbers are the exit codes of the command-line contract.
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

/// An error on its way to the user: what failed and why, the exit code, and what to do next.
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

    /// The causes below the message, nearest first, without those that a message above already quotes.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut shown = vec![self.error.to_string()];
        for cause in self.error.chain().skip(1) {
            let text = cause.to_string();
            if !shown.iter().any(|above| above.contains(&text)) {
                shown.push(text);
            }
        }
        shown.split_off(1)
    }
}

/// Refuses a result that is no number: exit code 5.
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

impl From<mpt_core::Error> for CliError {
    fn from(error: mpt_core::Error) -> Self {
        use mpt_core::Error as E;
        let status = match &error {
            E::Io { source, .. } => io_status(source, ExitStatus::Data),
            E::TooLong { .. } => ExitStatus::Usage,
            E::NoRoom { .. } | E::Threads { .. } | E::Memory { .. } => ExitStatus::System,
            E::Interrupted => ExitStatus::Interrupted,
            _ => ExitStatus::Data,
        };
        Self::new(status, error)
    }
}

impl From<mpt_data::Error> for CliError {
    fn from(error: mpt_data::Error) -> Self {
        use mpt_data::Error as E;
        let status = match &error {
            E::Io { source, .. } => io_status(source, ExitStatus::Data),
            E::MixFile { source, .. } => io_status(source, ExitStatus::Usage),
            E::RunFileSyntax { .. } | E::UnknownKey { .. } | E::Config { .. } | E::Unsupported { .. } => {
                ExitStatus::Usage
            }
            E::NoInput { .. } | E::NoField { .. } | E::NoToken { .. } | E::Loader { .. } => ExitStatus::Usage,
            E::NoEmbedder { .. } | E::NotOurs { .. } | E::Changed { .. } | E::Conversion { .. } => {
                ExitStatus::Usage
            }
            E::Taken { .. } | E::AlreadyBuilt { .. } | E::NoPlan { .. } | E::NoUnit { .. } => {
                ExitStatus::Usage
            }
            E::Busy { .. } => ExitStatus::System,
            E::Interrupted => ExitStatus::Interrupted,
            _ => ExitStatus::Data,
        };
        Self::new(status, error)
    }
}

impl From<mpt_tokenize::Error> for CliError {
    fn from(error: mpt_tokenize::Error) -> Self {
        Self::new(tokenize_status(&error), error)
    }
}

fn tokenize_status(error: &mpt_tokenize::Error) -> ExitStatus {
    use mpt_tokenize::Error as E;
    match error {
        E::Io { source, .. } => io_status(source, ExitStatus::Data),
        E::UnknownId { .. } | E::Config { .. } | E::UnknownTemplate { .. } => ExitStatus::Usage,
        _ => ExitStatus::Data,
    }
}

impl From<mpt_infer::Error> for CliError {
    fn from(error: mpt_infer::Error) -> Self {
        use mpt_infer::Error as E;
        match error {
            E::Model(error) => error.into(),
            E::Text(error) => error.into(),
            E::Tokenizer { problem } => problem.into(),
            E::NotFinite { .. } => Self::new(ExitStatus::NotFinite, error),
            E::Parameter { .. } | E::PromptTooLong { .. } => Self::new(ExitStatus::Usage, error),
            E::NoChatTemplate { .. } => {
                let names = mpt_tokenize::ChatTemplate::builtin_names().collect::<Vec<_>>().join(", ");
                Self::new(ExitStatus::Data, error)
                    .help(format!("--template with one of {names}, or --template-file"))
            }
            _ => Self::new(ExitStatus::Data, error),
        }
    }
}

impl From<TokenizerProblem> for CliError {
    fn from(problem: TokenizerProblem) -> Self {
        let status = match &problem {
            TokenizerProblem::Unusable(error) => tokenize_status(error),
            _ => ExitStatus::Data,
        };
        let help = problem.remedy();
        Self::new(status, problem).help(help)
    }
}

impl From<mpt_train::Error> for CliError {
    fn from(error: mpt_train::Error) -> Self {
        use mpt_train::Error as E;
        let status = match error {
            E::Model(error) => return error.into(),
            E::Data(error) => return error.into(),
            E::Tokenizer(error) => return error.into(),
            E::Io { ref source, .. } => io_status(source, ExitStatus::Data),
            E::RunFile { ref source, .. } => io_status(source, ExitStatus::Usage),
            E::Config { .. } | E::Override { .. } | E::Changed { .. } | E::RunExists { .. } => {
                ExitStatus::Usage
            }
            E::Busy { .. } => ExitStatus::System,
            E::NotFinite { .. } => ExitStatus::NotFinite,
            _ => ExitStatus::Data,
        };
        Self::new(status, error)
    }
}

impl From<candle_core::Error> for CliError {
    fn from(error: candle_core::Error) -> Self {
        Self::new(ExitStatus::Data, error)
    }
}

/// The exit code of an I/O error: `missing` where the file is absent or is not what it should be, else 4.
pub(crate) fn io_status(error: &std::io::Error, missing: ExitStatus) -> ExitStatus {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::NotFound
        | K::InvalidData
        | K::UnexpectedEof
        | K::IsADirectory
        | K::NotADirectory
        | K::InvalidInput => missing,
        _ => ExitStatus::System,
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
    fn a_missing_file_and_a_failing_disk_have_different_codes() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(io_status(&missing, ExitStatus::Usage), ExitStatus::Usage);
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(io_status(&full, ExitStatus::Usage), ExitStatus::System);
    }
}
