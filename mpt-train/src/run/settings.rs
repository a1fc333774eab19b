//! Settings of a run that decide its result, and the comparison with those of the checkpoint it resumes from.

use std::collections::{BTreeMap, BTreeSet};

use mpt_core::MptConfig;
use serde_json::Value;

use super::TrainRun;

/// Run-file keys that may differ between the sessions of one run, because no step's result depends on them. A key that
/// ends in a dot stands for its whole table.
///
/// `train.steps` moves the end of the schedule; extending a run is allowed all the same.
const FREE_KEYS: [&str; 6] = [
    "run_dir",
    "train.steps",
    "train.eval_every",
    "train.eval_samples",
    "train.activation_checkpointing",
    "checkpoint.",
];

/// Keys of `[data]` that the data cursor compares itself, by the names the data gives them.
const CURSOR_KEYS: [&str; 7] =
    ["sampling", "batching", "batch_group", "shuffle", "shuffle_window", "stages", "accept_changed"];

/// Keys that may change where the user names the checkpoint: the usual remedies for a diverged run.
const RESCUE_KEYS: [&str; 3] = ["optimizer.lr", "schedule.warmup_steps", "train.clip_norm"];

/// Values by dotted key, as TOML text.
pub(crate) type Settings = BTreeMap<String, String>;

/// Settings of `run` that decide the result. Data is identified by its manifest and a model by `config`, so their paths
/// are left out.
pub(crate) fn settings(run: &TrainRun, config: &MptConfig) -> Settings {
    let table: toml::Table = run.to_toml().parse().expect("a printed run is TOML");
    let mut settings = Settings::new();
    flatten("", &toml::Value::Table(table), &mut settings);
    settings.retain(|key, _| decides_result(key));
    settings.insert("model".into(), Value::from(config.clone()).to_string());
    settings
}

/// Leaves of a TOML value, by dotted key.
fn flatten(prefix: &str, value: &toml::Value, into: &mut Settings) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, into);
            }
        }
        leaf => drop(into.insert(prefix.to_owned(), leaf.to_string())),
    }
}

/// Whether the cursor and the configuration leave `key` to this comparison, and a step depends on it.
fn decides_result(key: &str) -> bool {
    let is_cursors = key.strip_prefix("data.").is_some_and(|key| CURSOR_KEYS.contains(&key));
    !is_free(key) && !is_cursors && key != "data.dir" && !key.starts_with("model.")
}

fn is_free(key: &str) -> bool {
    FREE_KEYS.iter().any(|free| key == *free || (free.ends_with('.') && key.starts_with(free)))
}

/// A setting that differs between a checkpoint and the run that resumes from it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Difference {
    /// Dotted key in the run file.
    pub(crate) key: String,
    /// Value the checkpoint was written with.
    pub(crate) before: String,
    /// Value of the resumed run.
    pub(crate) now: String,
}

impl Difference {
    /// Whether the difference is a usual remedy for a diverged run, allowed where the user names the checkpoint.
    pub(crate) fn is_rescue(&self) -> bool {
        RESCUE_KEYS.contains(&self.key.as_str())
    }
}

/// Differences between two sets of settings, by key. Free keys and the keys of `[data]` in `accepted` (with or without
/// the prefix `data.`) are left out.
pub(crate) fn differences(before: &Settings, now: &Settings, accepted: &[String]) -> Vec<Difference> {
    let is_accepted = |key: &str| {
        let name = key.strip_prefix("data.");
        name.is_some_and(|name| accepted.iter().any(|accepted| accepted == name || accepted == key))
    };
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let differs = |key: &&String| before.get(*key) != now.get(*key) && !is_free(key) && !is_accepted(key);
    let show =
        |settings: &Settings, key: &String| settings.get(key).map_or("not set", String::as_str).to_owned();
    keys.into_iter()
        .filter(differs)
        .map(|key| Difference { key: key.clone(), before: show(before, key), now: show(now, key) })
        .collect()
}
