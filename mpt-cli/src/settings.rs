//! What a command gets besides its own arguments: the common flags, resolved, and the way out.

use std::sync::atomic::AtomicBool;

use candle_core::Device;

use crate::common_args::CommonArgs;
use crate::exit::CliError;
use crate::interrupt::install_interrupt;
use crate::output::Output;

/// What a command gets besides its own arguments: the common flags, resolved, and the way out.
#[derive(Debug)]
pub(crate) struct Context {
    /// The only way to print.
    pub(crate) out: Output,
    /// `--seed`, if given; a command has its own default, or its file's.
    pub(crate) seed: Option<u64>,
    /// `--device`, which this build can use.
    pub(crate) device: Device,
}

impl Context {
    /// Resolves the common flags and sets the number of threads. Every command passes here before it does anything, also
    /// one that computes nothing, so a device is refused here or nowhere.
    ///
    /// # Errors
    /// Exit status 4 when this build cannot use the device or the system refuses the threads, 2 when `MPT_CPU_LEVEL`
    /// names no level.
    pub(crate) fn new(args: &CommonArgs, out: Output) -> Result<Self, CliError> {
        mpt_core::check_cpu_level()?;
        let device = args.device.open()?;
        if let Some(threads) = args.threads {
            mpt_core::set_threads(usize::from(threads))?;
        }
        Ok(Self { out, seed: args.seed, device })
    }

    /// The flag that the first Ctrl-C (or a polite kill) sets. To ask for it is to promise to poll it: until then an
    /// interrupt ends the process at once, as does a second one in any case.
    pub(crate) fn stop(&self) -> &'static AtomicBool {
        install_interrupt(self.out.log())
    }
}
