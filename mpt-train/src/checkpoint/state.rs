//! `training/state.json` of a checkpoint: progress, data cursor and settings of a run. No value depends on time.

use mpt_data::Cursor;
use serde::{Deserialize, Serialize};

use crate::run::{Difference, Settings};

/// Version of the file, raised when a field changes its meaning.
const FORMAT: u32 = 2;

/// State of a run besides weights and optimizer moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainState {
    format: u32,
    /// Steps done.
    pub(crate) step: u64,
    /// Tokens seen.
    pub(crate) tokens: u64,
    /// Loss of the first step.
    pub(crate) first_loss: f64,
    /// Loss of the last step.
    pub(crate) last_loss: f64,
    /// Held-out loss after the last step of the run.
    pub(crate) eval_loss: Option<f64>,
    /// Position in the data, at the next batch.
    pub(crate) cursor: Cursor,
    /// Settings that decide the result.
    pub(crate) settings: Settings,
    /// Settings changed on a resume to rescue a diverged run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<SettingChange>,
}

/// Setting that was changed when a run was resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingChange {
    /// Steps done before the change.
    after_step: u64,
    field: String,
    from: String,
    to: String,
}

impl SettingChange {
    pub(crate) fn new(after_step: u64, difference: Difference) -> Self {
        Self { after_step, field: difference.key, from: difference.before, to: difference.now }
    }
}

impl TrainState {
    /// State before the first step.
    pub(crate) fn start(cursor: Cursor, settings: Settings) -> Self {
        let (step, tokens, first_loss, last_loss) = (0, 0, 0.0, 0.0);
        let (eval_loss, changes) = (None, Vec::new());
        Self { format: FORMAT, step, tokens, first_loss, last_loss, eval_loss, cursor, settings, changes }
    }

    /// State of a checkpoint as the resumed run continues it.
    pub(crate) fn resumed(self, settings: Settings, changes: Vec<SettingChange>) -> Self {
        Self { settings, changes: [self.changes, changes].concat(), ..self }
    }

    /// Compares the version of the file with this program's. The error is the problem, without the file's name.
    pub(crate) fn check_format(&self) -> Result<(), String> {
        match self.format {
            FORMAT => Ok(()),
            found => Err(format!("format {found}, expected {FORMAT}")),
        }
    }
}
