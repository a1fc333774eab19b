//! Settings of the mix: shares, sampling, batching, shuffle and stages, as in a MIX.toml or a run file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Share of a source in the training samples. All sources of a mix have a proportion, or all have a quota.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Share {
    /// Proportion of the samples.
    Proportion(f64),
    /// Samples of the source in a pass over the mix.
    Quota(Quota),
}

/// Samples of a source in one pass over the mix, as MosaicML Streaming defines them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quota {
    /// Multiple of the source's samples, rounded down: 2 is every sample twice, 0.5 every second one.
    Repeat(f64),
    /// Number of samples.
    Choose(u64),
}

impl Quota {
    /// Samples of a source that has `of` samples.
    pub fn samples(self, of: u64) -> u64 {
        match self {
            Self::Repeat(times) => (times * of as f64) as u64,
            Self::Choose(samples) => samples,
        }
    }
}

/// Choice of the source of each sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// Every source within one sample of its share after any number of samples.
    #[default]
    Exact,
    /// Each sample's source drawn with the probability of its share, independently of all others.
    Iid,
}

impl Sampling {
    /// Name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Iid => "iid",
        }
    }
}

/// Constraint on every group of samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batching {
    /// No constraint: shares hold over the whole run.
    #[default]
    Random,
    /// Each group has the same number of samples of each source.
    Stratified,
    /// Each group is of one source.
    PerSource,
}

impl Batching {
    /// Name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Stratified => "stratified",
            Self::PerSource => "per_source",
        }
    }
}

/// Order of the samples of a source in each of its epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shuffle {
    /// Permutation of all samples.
    #[default]
    Global,
    /// Permutation of chunks, and of samples within windows of some chunks, so that reads stay near each other.
    Windowed,
    /// Order of the shards.
    None,
}

impl Shuffle {
    /// Name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Windowed => "windowed",
            Self::None => "none",
        }
    }
}

/// Default chunks in a window.
pub const DEFAULT_WINDOW: u64 = 16;

/// Settings of the mix, but for the shares of the sources, the seed and the length of samples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mixing {
    /// Choice of the source of each sample.
    #[serde(skip_serializing_if = "is_default")]
    pub sampling: Sampling,
    /// Constraint on every group of samples.
    #[serde(skip_serializing_if = "is_default")]
    pub batching: Batching,
    /// Samples in a group; by default those of a batch when a run begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_group: Option<u64>,
    /// Order of the samples of a source.
    #[serde(skip_serializing_if = "is_default")]
    pub shuffle: Shuffle,
    /// Chunks (row groups of 2048 rows) in a window; by default [`DEFAULT_WINDOW`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shuffle_window: Option<u64>,
    /// Stages with other shares or lengths, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageConfig>,
}

/// Overrides of a [`Mixing`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MixingChanges {
    /// As in [`Mixing`], like the other fields.
    pub sampling: Option<Sampling>,
    /// An override drops the group of the default.
    pub batching: Option<Batching>,
    /// Samples in a group.
    pub batch_group: Option<u64>,
    /// An override drops the window of the default.
    pub shuffle: Option<Shuffle>,
    /// Chunks in a window.
    pub shuffle_window: Option<u64>,
    /// All stages, in place of those of the default.
    pub stages: Option<Vec<StageConfig>>,
}

impl MixingChanges {
    /// `default` with these overrides.
    pub fn over(self, default: &Mixing) -> Mixing {
        let group = default.batch_group.filter(|_| self.batching.is_none());
        let window = default.shuffle_window.filter(|_| self.shuffle.is_none());
        Mixing {
            sampling: self.sampling.unwrap_or(default.sampling),
            batching: self.batching.unwrap_or(default.batching),
            batch_group: self.batch_group.or(group),
            shuffle: self.shuffle.unwrap_or(default.shuffle),
            shuffle_window: self.shuffle_window.or(window),
            stages: self.stages.unwrap_or_else(|| default.stages.clone()),
        }
    }
}

/// Stage of a run: shares or a length from a sample on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// First sample, counted from the beginning of the run.
    pub from: u64,
    /// Shares by source, which sum to 1; a source that is not named is not drawn. By default as before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub proportions: BTreeMap<String, f64>,
    /// Tokens in a sample. By default as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq_len: Option<usize>,
}

/// Key with an impossible value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidKey {
    /// Key; empty for the table that holds the keys.
    pub key: &'static str,
    /// Value of the key.
    pub actual: String,
    /// Expectation, in words.
    pub expected: String,
}

impl InvalidKey {
    pub(crate) fn new(key: &'static str, actual: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { key, actual: actual.into(), expected: expected.into() }
    }
}

impl Mixing {
    /// Whether all settings are the defaults.
    pub fn is_default(&self) -> bool {
        is_default(self)
    }

    /// Chunks in a window.
    pub fn window(&self) -> u64 {
        self.shuffle_window.unwrap_or(DEFAULT_WINDOW)
    }

    /// Checks that the keys are consistent, for sources of these names.
    ///
    /// # Errors
    /// First inconsistent key.
    pub fn check<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Result<(), InvalidKey> {
        let wrong = |key, actual: String, expected: &str| {
            Err(InvalidKey { key, actual, expected: expected.to_owned() })
        };
        if self.batch_group == Some(0) {
            return wrong("batch_group", "0".into(), "1 or more samples");
        }
        if self.batch_group.is_some() && self.batching == Batching::Random {
            let expected = "no such key with `batching = \"random\"`, which has no groups";
            return wrong("batch_group", "set".into(), expected);
        }
        if self.shuffle_window == Some(0) {
            return wrong("shuffle_window", "0".into(), "1 or more chunks");
        }
        if self.shuffle_window.is_some() && self.shuffle != Shuffle::Windowed {
            return wrong("shuffle_window", "set".into(), "no such key but with `shuffle = \"windowed\"`");
        }
        if (self.sampling, self.batching) == (Sampling::Iid, Batching::Stratified) {
            let expected = "\"exact\" with `batching = \"stratified\"`: groups of fixed counts are not independent draws";
            return wrong("sampling", "\"iid\"".into(), expected);
        }
        self.check_stages(names)
    }

    fn check_stages<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Result<(), InvalidKey> {
        let wrong = |actual: String, expected: String| Err(InvalidKey { key: "stages", actual, expected });
        for pair in self.stages.windows(2) {
            if pair[0].from >= pair[1].from {
                let actual = format!("from = {} after from = {}", pair[1].from, pair[0].from);
                return wrong(
                    actual,
                    "stages in the order of their `from`, each later than the one before".into(),
                );
            }
        }
        self.stages.iter().try_for_each(|stage| stage.check(names.clone()))
    }
}

impl StageConfig {
    /// Checks the names and the sum of the proportions.
    fn check<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Result<(), InvalidKey> {
        let wrong = |actual: String, expected: String| Err(InvalidKey { key: "stages", actual, expected });
        let from = self.from;
        if let Some(name) = self.proportions.keys().find(|name| names.clone().all(|known| known != *name)) {
            let known = names.collect::<Vec<_>>().join(", ");
            return wrong(
                format!("a proportion for `{name}` from sample {from} on"),
                format!("names of sources: {known}"),
            );
        }
        if let Some((name, share)) = self.proportions.iter().find(|(_, share)| !(1e-6..=1.0).contains(*share))
        {
            let actual = format!("{share} for `{name}` from sample {from} on");
            return wrong(
                actual,
                "shares from 0.000001 to 1; leave out a source that is not to be drawn".into(),
            );
        }
        let sum: f64 = self.proportions.values().sum();
        if !self.proportions.is_empty() && (sum - 1.0).abs() > 1e-6 {
            return wrong(
                format!("proportions that sum to {sum} from sample {from} on"),
                "shares that sum to 1".into(),
            );
        }
        Ok(())
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), InvalidKey> {
        let mixing: Mixing = toml::from_str(text).expect("TOML");
        mixing.check(["web", "code"].into_iter())
    }

    #[test]
    fn keys_that_do_not_go_together_are_named() {
        let key = |text: &str| check(text).expect_err("refused").key;
        assert_eq!(key("batching = \"stratified\"\nsampling = \"iid\""), "sampling");
        assert_eq!(key("batch_group = 4"), "batch_group");
        assert_eq!(key("shuffle_window = 4"), "shuffle_window");
        assert_eq!(key("shuffle = \"windowed\"\nshuffle_window = 0"), "shuffle_window");
        check("batching = \"per_source\"\nbatch_group = 4\nsampling = \"iid\"").expect("sound");
    }

    #[test]
    fn stages_are_in_order_and_name_sources() {
        let found = |text: &str| check(text).expect_err("refused").actual;
        assert_eq!(found("[[stages]]\nfrom = 5\n[[stages]]\nfrom = 5\n"), "from = 5 after from = 5");
        let text = "[[stages]]\nfrom = 5\nproportions = { web = 0.5, books = 0.5 }\n";
        assert_eq!(found(text), "a proportion for `books` from sample 5 on");
        let text = "[[stages]]\nfrom = 5\nproportions = { web = 0.5 }\n";
        assert_eq!(found(text), "proportions that sum to 0.5 from sample 5 on");
        check("[[stages]]\nfrom = 0\nproportions = { web = 0.5, code = 0.5 }\n[[stages]]\nfrom = 9\nseq_len = 64")
            .expect("sound");
    }

    #[test]
    fn a_share_is_a_number_or_a_quota() {
        let read = |text: &str| serde_json::from_str::<Share>(text).expect("a share");
        assert_eq!(read("0.5"), Share::Proportion(0.5));
        assert_eq!(read("{\"repeat\": 1.5}"), Share::Quota(Quota::Repeat(1.5)));
        assert_eq!(read("{\"choose\": 7}"), Share::Quota(Quota::Choose(7)));
        assert_eq!(serde_json::to_string(&Share::Proportion(0.5)).expect("JSON"), "0.5");
        assert_eq!((Quota::Repeat(1.5).samples(3), Quota::Choose(7).samples(3)), (4, 7));
    }
}
