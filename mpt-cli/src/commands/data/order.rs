//! Flags of the sample order, for commands that inspect it.

use std::path::PathBuf;

use mpt_data::{Batching, Mixing, MixingChanges, Sampling, Shuffle};
use mpt_train::TrainRun;
use serde::de::DeserializeOwned;

use crate::exit::CliError;

/// Flags of the sample order. The default is that of the data.
#[derive(Debug, clap::Args)]
pub(crate) struct OrderArgs {
    /// Draw and order as the `[data]` of this run file says, its stages too [default: as the data says]
    #[arg(long, value_name = "RUN.toml")]
    run: Option<PathBuf>,
    /// How sources are drawn: `exact` or `iid` [default: as the data says]
    #[arg(long, value_name = "KIND", value_parser = from_serde_name::<Sampling>)]
    sampling: Option<Sampling>,
    /// What groups of samples have in common: `random`, `stratified` or `per_source` [default: as the data says]
    #[arg(long, value_name = "KIND", value_parser = from_serde_name::<Batching>)]
    batching: Option<Batching>,
    /// Samples in a group [default: as the data says, or a batch]
    #[arg(long, value_name = "N")]
    batch_group: Option<u64>,
    /// How samples of a source are shuffled: `global`, `windowed` or `none` [default: as the data says]
    #[arg(long, value_name = "KIND", value_parser = from_serde_name::<Shuffle>)]
    shuffle: Option<Shuffle>,
    /// Chunks in a window of `--shuffle windowed` [default: 16]
    #[arg(long, value_name = "K")]
    shuffle_window: Option<u64>,
}

impl OrderArgs {
    /// Mixing of the data, overridden by the run file and by flags.
    pub(crate) fn apply_to(&self, data: &Mixing) -> Result<Mixing, CliError> {
        let base = match &self.run {
            Some(path) => TrainRun::from_file(path, &[])?.data.mixing(data),
            None => data.clone(),
        };
        let changes = MixingChanges {
            sampling: self.sampling,
            batching: self.batching,
            batch_group: self.batch_group,
            shuffle: self.shuffle,
            shuffle_window: self.shuffle_window,
            stages: None,
        };
        Ok(changes.over(&base))
    }
}

/// Parses a value by its name in run files.
fn from_serde_name<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error: serde_json::Error| error.to_string())
}
