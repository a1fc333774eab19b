//! What happens when a request fails: some failures pass, and are waited out; others end the command.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::exit::{CliError, ExitStatus};
use crate::output::Log;
use crate::progress;

/// How often in a row a request may fail before the command gives up.
const MAX_FAILURES: u32 = 6;
/// The wait after the first failure; it doubles with each further one.
const INITIAL_BACKOFF: Duration = Duration::from_millis(300);
/// How often a wait looks whether to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The same request may do later: the error if it never does, and how long the server asks to wait.
    Transient(CliError, Option<Duration>),
    /// It will not.
    Permanent(CliError),
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self::Permanent(error)
    }
}

/// The failures in a row so far.
#[derive(Debug)]
pub(crate) struct Retries<'a> {
    log: &'a Log,
    stop: &'a AtomicBool,
    failures: u32,
}

impl<'a> Retries<'a> {
    /// None so far.
    pub(crate) fn new(log: &'a Log, stop: &'a AtomicBool) -> Self {
        Self { log, stop, failures: 0 }
    }

    /// Something was gained: the count starts again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits until the request may be made again.
    ///
    /// # Errors
    /// The failure's own error if it is final or one too many; exit status 130 when told to stop.
    pub(crate) fn wait(&mut self, failure: Failure) -> Result<(), CliError> {
        let (error, retry_after) = match failure {
            Failure::Permanent(error) => return Err(error),
            Failure::Transient(error, retry_after) => (error, retry_after),
        };
        self.failures += 1;
        if self.failures == MAX_FAILURES {
            return Err(error);
        }
        let wait = retry_after.unwrap_or(INITIAL_BACKOFF * (1 << (self.failures - 1)));
        let again = format!("trying again in {}", progress::format_duration(wait));
        let causes = error.causes().into_iter().map(|cause| format!(": {cause}")).collect::<String>();
        self.log
            .warn(format_args!("{error}{causes}; {again} ({} of {MAX_FAILURES} failures)", self.failures));
        sleep(wait, self.stop)
    }
}

/// Waits, and looks whether to stop meanwhile.
///
/// # Errors
/// Exit status 130 when told to stop.
pub(crate) fn sleep(wait: Duration, stop: &AtomicBool) -> Result<(), CliError> {
    let until = Instant::now() + wait;
    loop {
        check_interrupt(stop)?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(POLL_INTERVAL));
    }
}

/// An error, exit status 130, once the command was told to stop.
pub(crate) fn check_interrupt(stop: &AtomicBool) -> Result<(), CliError> {
    if !stop.load(Ordering::Relaxed) {
        return Ok(());
    }
    let error = anyhow::Error::msg("interrupted; what was downloaded is kept");
    Err(CliError::new(ExitStatus::Interrupted, error).help("run the same command again to continue"))
}
