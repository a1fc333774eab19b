//! Progress of data preparation on the terminal.

use std::sync::atomic::{AtomicBool, Ordering};

use mpt_data::{Note, Phase, Progress};

use crate::output::Log;
use crate::progress::{ProgressBar, Unit};
use crate::settings::Context;

/// Progress bars of data preparation, which an interrupt ends.
pub(crate) struct PrepareProgress {
    log: Log,
    stop: &'static AtomicBool,
    bar: Option<ProgressBar>,
}

impl PrepareProgress {
    /// Progress without a bar.
    pub(crate) fn new(ctx: &Context) -> Self {
        Self { log: ctx.out.log().clone(), stop: ctx.stop(), bar: None }
    }
}

impl Progress for PrepareProgress {
    fn start(&mut self, stage: Phase, total: u64) {
        let unit = if stage.unit() == "bytes" { Unit::Bytes } else { Unit::Count(stage.unit()) };
        self.bar = Some(ProgressBar::start(&self.log, stage.name(), unit, Some(total)));
    }

    fn advance(&mut self, steps: u64) {
        if let Some(bar) = &mut self.bar {
            bar.advance(steps);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }

    fn note(&mut self, note: &Note) {
        self.log.info(note);
    }

    fn keep_going(&mut self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}
