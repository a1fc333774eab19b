//! Context of a command: its output and the resolved common flags.

use std::sync::atomic::AtomicBool;

use candle_core::Device;

use crate::common_args::CommonArgs;
use crate::exit::CliError;
use crate::interrupt::install_interrupt;
use crate::output::Output;

/// Context of a command: its output and the resolved common flags.
#[derive(Debug)]
pub(crate) struct Context {
    /// Output.
    pub(crate) out: Output,
    /// `--seed`, if given. The default belongs to the command or to its run file.
    pub(crate) seed: Option<u64>,
    /// `--device`, opened.
    pub(crate) device: Device,
}

impl Context {
    /// Resolves the common flags and sets the number of threads. Every command runs this first, so a device that is not
    /// supported is refused before any work.
    ///
    /// # Errors
    /// Exit status 4 if this build does not support the device or the system refuses the threads, 2 if `MPT_CPU_LEVEL`
    /// names no level.
    pub(crate) fn new(args: &CommonArgs, out: Output) -> Result<Self, CliError> {
        mpt_core::check_cpu_level()?;
        let device = args.device.open()?;
        if let Some(threads) = args.threads {
            mpt_core::set_threads(usize::from(threads))?;
        }
        Ok(Self { out, seed: args.seed, device })
    }

    /// Interrupt flag, set by the first Ctrl-C or SIGTERM. A command that takes it must poll it. Before that, an
    /// interrupt ends the process at once; a second one always does.
    pub(crate) fn stop(&self) -> &'static AtomicBool {
        install_interrupt(self.out.log())
    }
}
