//! Cursor: the place of a run in its data, and everything that decides the place.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::LoaderConfig;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::mixing::{Batching, Mixing, Shuffle};

/// Hex digits of a hash in a cursor.
const CURSOR_DIGITS: usize = 16;

/// Place of a run in its data, with everything that resuming exactly there needs. A few hundred bytes as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Next sample, counted over all ranks since the beginning of the run.
    pub sample: u64,
    seed: u64,
    seq_len: usize,
    /// Absent in cursors of earlier versions, as are the next three fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    row_tokens: Option<usize>,
    #[serde(default = "exact")]
    sampling: String,
    #[serde(default = "random")]
    batching: String,
    #[serde(default = "global")]
    shuffle: String,
    tokenizer: String,
    mix: String,
    manifest: String,
    /// Accepted changes, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<AcceptedChange>,
}

/// Change on resuming that was asked for, and would have been refused otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptedChange {
    /// First sample after the change.
    pub sample: u64,
    /// Field that changed.
    pub field: String,
    /// Value before the change.
    pub was: String,
}

fn exact() -> String {
    "exact".into()
}

fn random() -> String {
    Batching::Random.name().into()
}

fn global() -> String {
    Shuffle::Global.name().into()
}

impl Cursor {
    /// Cursor at the beginning of a run, with groups of `group` samples.
    pub(super) fn start(manifest: &Manifest, config: &LoaderConfig, group: u64) -> Self {
        let short = |hash: &str| hash[..CURSOR_DIGITS.min(hash.len())].to_owned();
        let Mixing { sampling, batching, shuffle, .. } = config.mixing;
        Self {
            sample: 0,
            seed: config.seed,
            seq_len: config.seq_len,
            row_tokens: Some(manifest.plan().row_tokens),
            sampling: sampling.name().into(),
            batching: match batching {
                Batching::Random => batching.name().into(),
                _ => format!("{}:{group}", batching.name()),
            },
            shuffle: match shuffle {
                Shuffle::Windowed => format!("{}:{}", shuffle.name(), config.mixing.window()),
                _ => shuffle.name().into(),
            },
            tokenizer: short(&manifest.plan().tokenizer),
            mix: mix_hash(manifest, &config.mixing),
            manifest: short(manifest.root()),
            accepted: Vec::new(),
        }
    }

    /// Samples in a group, where the run has groups.
    pub(super) fn group(&self) -> Option<u64> {
        self.batching.split_once(':').and_then(|(_, group)| group.parse().ok())
    }

    /// This place with the settings of `now`. Differences must be in `accept`, and are noted.
    pub(super) fn resume_as(self, now: Self, accept: &[String]) -> Result<Self> {
        let row_tokens = |cursor: &Self| cursor.row_tokens.or(now.row_tokens).unwrap_or(0).to_string();
        let pairs = [
            ("tokenizer", self.tokenizer.clone(), now.tokenizer.clone()),
            ("data.seed", self.seed.to_string(), now.seed.to_string()),
            ("data.seq_len", self.seq_len.to_string(), now.seq_len.to_string()),
            ("row_tokens", row_tokens(&self), row_tokens(&now)),
            ("data.sampling", self.sampling.clone(), now.sampling.clone()),
            ("data.batching", self.batching.clone(), now.batching.clone()),
            ("data.shuffle", self.shuffle.clone(), now.shuffle.clone()),
            ("mix", self.mix.clone(), now.mix.clone()),
            ("manifest", self.manifest.clone(), now.manifest.clone()),
        ];
        let mut accepted = self.accepted;
        for (field, was, is) in pairs.into_iter().filter(|(_, was, is)| was != is) {
            let name = field.strip_prefix("data.").unwrap_or(field);
            if !accept.iter().any(|accept| accept.strip_prefix("data.").unwrap_or(accept) == name) {
                return Err(Error::Cursor { field, expected: was, actual: is });
            }
            accepted.push(AcceptedChange { sample: self.sample, field: name.to_owned(), was });
        }
        Ok(Self { sample: self.sample, accepted, ..now })
    }
}

/// Hash of names, shares and stages.
fn mix_hash(manifest: &Manifest, mixing: &Mixing) -> String {
    let mix: Vec<_> = manifest.sources().iter().map(|source| (&source.name, source.proportion)).collect();
    let mut bytes = serde_json::to_vec(&mix).expect("names and finite numbers");
    if !mixing.stages.is_empty() {
        bytes.extend(serde_json::to_vec(&mixing.stages).expect("names and finite numbers"));
    }
    format!("{:016x}", xxh3_64(&bytes))
}
