//! Paths mistaken for a model.

use std::fmt;

/// Kind of a path mistaken for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mistaken {
    /// Weights file instead of its folder.
    WeightsFile,
    /// Missing path of the form `owner/name`, a hub name.
    Absent,
    /// LoRA adapter.
    Adapter,
    /// Folder of prepared data.
    DataFolder,
    /// Folder of a training run without checkpoints.
    Run,
}

impl Mistaken {
    /// Advice for the message.
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
