//! Progress of a conversion, in bytes.

use crate::error::{Error, Result};
use crate::progress::Progress;

/// Bytes between two progress reports.
const REPORT_BYTES: u64 = 1 << 20;

/// Progress in bytes, reported now and then.
pub(super) struct ByteProgress<'a> {
    progress: &'a mut dyn Progress,
    unreported: u64,
}

impl<'a> ByteProgress<'a> {
    /// Progress before the first byte.
    pub(super) fn new(progress: &'a mut dyn Progress) -> Self {
        Self { progress, unreported: 0 }
    }

    /// Advances by `bytes`.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the caller asks to stop.
    pub(super) fn step(&mut self, bytes: u64) -> Result<()> {
        self.unreported += bytes;
        if self.unreported < REPORT_BYTES {
            return Ok(());
        }
        self.progress.advance(std::mem::take(&mut self.unreported));
        if self.progress.keep_going() { Ok(()) } else { Err(Error::Interrupted) }
    }
}
