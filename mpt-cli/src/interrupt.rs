//! Ctrl-C and panics.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::ExitStatus;
use crate::output::{Log, print_bug};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Installs the Ctrl-C handler and returns its flag. The first interrupt sets the flag, the second ends the process.
pub(crate) fn install_interrupt(log: &Log) -> &'static AtomicBool {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let handler_log = log.clone();
        let installed = ctrlc::set_handler(move || {
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                exit(ExitStatus::Interrupted);
            }
            handler_log.info("stopping after this step; interrupt again to stop at once");
        });
        if let Err(error) = installed {
            log.warn(format_args!("interrupts will not be caught: {error}"));
        }
    });
    &INTERRUPTED
}

/// Installs a panic hook that prints one line with a request for a report and exits with code 70. A panic that a
/// library contains while it reads a damaged file becomes an error instead.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        if mpt_data::is_panic_caught() {
            return;
        }
        let message = info.payload_as_str().unwrap_or("no message");
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        print_bug(message, &location);
        exit(ExitStatus::Bug);
    }));
}

#[expect(clippy::exit, reason = "a signal handler and a panic hook have no caller to return a status to")]
fn exit(status: ExitStatus) -> ! {
    std::process::exit(status as i32)
}
