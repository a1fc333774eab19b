//! What people take for a model.

use std::fmt;

/// Kind of a path that is taken for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mistaken {
    /// A file of weights without the folder around it.
    WeightsFile,
    /// Nothing; the name of a model on a hub looks like this.
    Absent,
    /// A LoRA adapter.
    Adapter,
    /// A folder of prepared data.
    DataFolder,
    /// The folder of a training run that has saved no checkpoint.
    Run,
}

impl Mistaken {
    /// What to do.
    pub(crate) fn instead(self) -> &'static str {
        match self {
            Self::WeightsFile => "name the folder that holds it and its config.json",
            Self::Absent => "if it is the name of a model on a hub, download that and name its folder",
            Self::Adapter => "name its base model here and the adapter beside it",
            Self::DataFolder => "name a model, such as one that was trained on it",
            Self::Run => "name one of its `checkpoints/step-…` when the first is saved",
        }
    }
}

impl fmt::Display for Mistaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WeightsFile => "a weights file",
            Self::Absent => "nothing on this machine",
            Self::Adapter => "a LoRA adapter",
            Self::DataFolder => "a data folder",
            Self::Run => "a run folder",
        })
    }
}
