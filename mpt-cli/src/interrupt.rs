//! What ends `mpt` from outside its commands: Ctrl-C, and a bug.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::ExitStatus;
use crate::output::{Log, print_bug};

static STOP: AtomicBool = AtomicBool::new(false);

/// From now on the first interrupt sets the flag returned, and a second one ends the process.
pub(crate) fn install_interrupt(log: &Log) -> &'static AtomicBool {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let handler_log = log.clone();
        let installed = ctrlc::set_handler(move || {
            if STOP.swap(true, Ordering::SeqCst) {
                leave(ExitStatus::Interrupted);
            }
            handler_log.info("stopping after this step; interrupt again to stop at once");
        });
        if let Err(error) = installed {
            log.warn(format_args!("interrupts will not be caught: {error}"));
        }
    });
    &STOP
}

/// Makes a panic anywhere, in any thread, one line that asks for a report, and exit code 70; but not one of a library that
/// reads a damaged file, which becomes an error with the file's name.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        if mpt_data::is_panic_caught() {
            return;
        }
        let what = info.payload_as_str().unwrap_or("no message");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        print_bug(what, &place);
        leave(ExitStatus::Bug);
    }));
}

#[expect(clippy::exit, reason = "a signal handler and a panic hook have no caller to return a status to")]
fn leave(status: ExitStatus) -> ! {
    std::process::exit(status as i32)
}
