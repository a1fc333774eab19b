//! Retries with exponential backoff: a transient failure is waited out, a permanent one ends the command.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::exit::{CliError, ExitStatus};
use crate::output::Log;
use crate::progress;

/// Number of consecutive failures after which the command gives up.
const MAX_FAILURES: u32 = 6;
/// Wait after the first failure. It doubles with each further one.
const INITIAL_BACKOFF: Duration = Duration::from_millis(300);
/// Interval at which a wait checks the interrupt flag.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Failure of a request.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The same request may succeed later. Holds the error to report otherwise, and the server's `Retry-After`.
    Transient(CliError, Option<Duration>),
    /// A retry is pointless.
    Permanent(CliError),
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self::Permanent(error)
    }
}

/// Counter of consecutive failures.
#[derive(Debug)]
pub(crate) struct Retries<'a> {
    log: &'a Log,
    stop: &'a AtomicBool,
    failures: u32,
}

impl<'a> Retries<'a> {
    /// Counter at zero.
    pub(crate) fn new(log: &'a Log, stop: &'a AtomicBool) -> Self {
        Self { log, stop, failures: 0 }
    }

    /// Resets the counter after progress.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The failure's own error if it is permanent or one too many; exit status 130 after an interrupt.
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

/// Sleeps, and checks the interrupt flag meanwhile.
///
/// # Errors
/// Exit status 130 after an interrupt.
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

/// Fails with exit status 130 after an interrupt.
pub(crate) fn check_interrupt(stop: &AtomicBool) -> Result<(), CliError> {
    if !stop.load(Ordering::Relaxed) {
        return Ok(());
    }
    let error = anyhow::Error::msg("interrupted; what was downloaded is kept");
    Err(CliError::new(ExitStatus::Interrupted, error).help("run the same command again to continue"))
}
