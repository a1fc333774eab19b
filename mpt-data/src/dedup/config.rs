//! Settings of deduplication: `dedup` of a MIX.toml, and `sources.X.dedup`.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::filter::{check_local, check_share, file_name};
use crate::mixing::InvalidKey;

/// Names of the stages, in the order in which they run, and of no stage.
const NAMES: [&str; 5] = ["exact", "paragraph", "minhash", "semdedup", "none"];
/// Most hashes in a signature.
const MAX_HASHES: usize = 1024;

/// Stages of deduplication, in the order in which they run. The exact stage comes before every other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dedup {
    stages: Vec<DedupStage>,
}

/// Stage of deduplication with its settings. The exact stage comes before every other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum DedupStage {
    /// Later documents with the same bytes of text are dropped.
    Exact {},
    /// Paragraphs of earlier documents are removed from later ones.
    Paragraph(Paragraphs),
    /// Near copies of earlier documents are dropped.
    MinHash(MinHash),
    /// Documents nearest in meaning to another one are dropped.
    SemDedup(SemDedup),
}

/// Kind of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DedupKind {
    /// [`DedupStage::Exact`].
    Exact,
    /// [`DedupStage::Paragraph`].
    Paragraph,
    /// [`DedupStage::MinHash`].
    MinHash,
    /// [`DedupStage::SemDedup`].
    SemDedup,
}

/// Settings of the paragraph stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paragraphs {
    /// Paragraphs of fewer words are kept: headings and dates are no copies of each other.
    pub min_words: u64,
}

/// Settings of the MinHash stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MinHash {
    /// Words in an n-gram.
    pub ngram: usize,
    /// Bands of a signature; two documents that agree in all rows of a band are compared.
    pub bands: usize,
    /// Hashes in a band.
    pub rows: usize,
    /// Least share of equal hashes of near copies.
    pub threshold: f64,
    /// Seed of the hash functions.
    pub seed: u64,
}

/// Settings of the semantic stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SemDedup {
    /// Model whose hidden states are the vectors of texts, relative to the run file.
    pub model: String,
    /// Share of the documents to keep, from 0 to 1.
    #[serde(default = "default_keep")]
    pub keep: f64,
    /// Clusters. By default the square root of the number of documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<usize>,
    /// Most rounds of clustering.
    #[serde(default = "default_iterations")]
    pub iterations: usize,
    /// Tokens of a document that the model reads, at most.
    #[serde(default = "default_tokens")]
    pub tokens: usize,
    /// Order in which the documents of a cluster are kept.
    #[serde(default)]
    pub keep_first: KeepFirst,
    /// Seed of the clusters.
    #[serde(default = "default_seed")]
    pub seed: u64,
}

/// Order in which the documents of a cluster are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepFirst {
    /// Far from the center of the cluster first.
    #[default]
    Hard,
    /// Near the center of the cluster first.
    Easy,
    /// Random, by the seed.
    Random,
}

fn default_keep() -> f64 {
    0.8
}

fn default_iterations() -> usize {
    20
}

fn default_tokens() -> usize {
    512
}

fn default_seed() -> u64 {
    1
}

impl Default for Paragraphs {
    fn default() -> Self {
        Self { min_words: 10 }
    }
}

impl Default for MinHash {
    fn default() -> Self {
        Self { ngram: 5, bands: 14, rows: 8, threshold: 0.7, seed: 1 }
    }
}

impl DedupKind {
    /// Name in run files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Paragraph => "paragraph",
            Self::MinHash => "minhash",
            Self::SemDedup => "semdedup",
        }
    }
}

impl DedupStage {
    /// Kind of the stage.
    pub fn kind(&self) -> DedupKind {
        match self {
            Self::Exact {} => DedupKind::Exact,
            Self::Paragraph(_) => DedupKind::Paragraph,
            Self::MinHash(_) => DedupKind::MinHash,
            Self::SemDedup(_) => DedupKind::SemDedup,
        }
    }

    fn check(&self) -> Result<(), InvalidKey> {
        let count = |key, value: usize, most: usize| {
            let wrong = || InvalidKey::new(key, value.to_string(), format!("from 1 to {most}"));
            if (1..=most).contains(&value) { Ok(()) } else { Err(wrong()) }
        };
        match self {
            Self::Exact {} | Self::Paragraph(_) => Ok(()),
            Self::MinHash(settings) => {
                count("ngram", settings.ngram, 100)?;
                count("bands", settings.bands, MAX_HASHES)?;
                count("rows", settings.rows, MAX_HASHES / settings.bands)?;
                check_share("threshold", settings.threshold)
            }
            Self::SemDedup(settings) => {
                check_local("model", &settings.model)?;
                count("iterations", settings.iterations, 1000)?;
                count("tokens", settings.tokens, 1 << 20)?;
                count("clusters", settings.clusters.unwrap_or(1), 1 << 20)?;
                check_share("keep", settings.keep)
            }
        }
    }
}

impl Dedup {
    /// No stage.
    pub fn none() -> Self {
        Self::default()
    }

    /// Exact stage alone.
    pub fn exact() -> Self {
        Self { stages: vec![DedupStage::Exact {}] }
    }

    /// Stages, in the order in which they run.
    pub fn stages(&self) -> &[DedupStage] {
        &self.stages
    }

    /// Whether there is a stage of this kind.
    pub fn has(&self, kind: DedupKind) -> bool {
        self.stages.iter().any(|stage| stage.kind() == kind)
    }

    /// Settings of the paragraph stage.
    pub(crate) fn paragraphs(&self) -> Option<&Paragraphs> {
        self.stages.iter().find_map(|stage| match stage {
            DedupStage::Paragraph(settings) => Some(settings),
            _ => None,
        })
    }

    /// Settings of the MinHash stage.
    pub(crate) fn minhash(&self) -> Option<&MinHash> {
        self.stages.iter().find_map(|stage| match stage {
            DedupStage::MinHash(settings) => Some(settings),
            _ => None,
        })
    }

    /// Settings of the semantic stage.
    pub fn semdedup(&self) -> Option<&SemDedup> {
        self.stages.iter().find_map(|stage| match stage {
            DedupStage::SemDedup(settings) => Some(settings),
            _ => None,
        })
    }

    /// Copy with the model's name alone, because its folder decides nothing.
    pub(crate) fn without_folders(&self) -> Self {
        let mut dedup = self.clone();
        for stage in &mut dedup.stages {
            if let DedupStage::SemDedup(settings) = stage {
                settings.model = file_name(&settings.model);
            }
        }
        dedup
    }

    /// Checks the order and the settings of the stages; an error holds the index of the stage.
    pub(crate) fn check(&self) -> Result<(), (usize, InvalidKey)> {
        for (index, pair) in self.stages.windows(2).enumerate() {
            let (before, after) = (pair[0].kind(), pair[1].kind());
            if before >= after {
                let expected =
                    "each stage once, in the order in which they run: exact, paragraph, minhash, semdedup";
                let actual = format!("\"{}\" after \"{}\"", after.name(), before.name());
                return Err((index + 1, InvalidKey::new("kind", actual, expected)));
            }
        }
        let mut numbered = self.stages.iter().enumerate();
        numbered.try_for_each(|(index, stage)| stage.check().map_err(|wrong| (index, wrong)))
    }

    fn new(mut stages: Vec<DedupStage>) -> Self {
        let first = stages.first().map(DedupStage::kind);
        if first.is_some_and(|first| first != DedupKind::Exact) {
            stages.insert(0, DedupStage::Exact {});
        }
        Self { stages }
    }
}

/// Stage of this name with default settings; `None` for "none".
fn named<E: serde::de::Error>(name: &str) -> Result<Option<DedupStage>, E> {
    Ok(Some(match name {
        "none" => return Ok(None),
        "exact" => DedupStage::Exact {},
        "paragraph" => DedupStage::Paragraph(Paragraphs::default()),
        "minhash" => DedupStage::MinHash(MinHash::default()),
        "semdedup" => {
            let problem =
                "\"semdedup\" needs a model: `dedup = { kind = \"semdedup\", model = \"PATH\", keep = 0.8 }`";
            return Err(E::custom(problem));
        }
        other => return Err(E::unknown_variant(other, &NAMES)),
    }))
}

impl<'de> Deserialize<'de> for Dedup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DedupVisitor)
    }
}

/// `"none"` and `"exact"` keep the form they had before stages had settings.
impl Serialize for Dedup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.stages[..] {
            [] => serializer.serialize_str("none"),
            [DedupStage::Exact {}] => serializer.serialize_str("exact"),
            _ => self.stages.serialize(serializer),
        }
    }
}

/// Visitor of a name, a table or a list.
struct DedupVisitor;

impl<'de> Visitor<'de> for DedupVisitor {
    type Value = Dedup;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a stage, a table with its `kind`, or a list of them")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Dedup, E> {
        Ok(Dedup::new(named(name)?.into_iter().collect()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Dedup, A::Error> {
        Ok(Dedup::new(vec![DedupStage::deserialize(MapAccessDeserializer::new(map))?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Dedup, A::Error> {
        let stages = Vec::<StageEntry>::deserialize(SeqAccessDeserializer::new(list))?;
        Ok(Dedup::new(stages.into_iter().map(|StageEntry(stage)| stage).collect()))
    }
}

/// Stage in a list: a name or a table.
struct StageEntry(DedupStage);

impl<'de> Deserialize<'de> for StageEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let dedup = deserializer.deserialize_any(DedupVisitor)?;
        let stage = dedup.stages.into_iter().last();
        stage.map(StageEntry).ok_or_else(|| D::Error::custom("\"none\" is no stage of a list; leave it out"))
    }
}

/// Stages that a source takes part in: `true`, `false`, or a list of names.
#[derive(Debug, Clone)]
pub(crate) struct DedupKinds(pub(crate) Option<Vec<DedupKind>>);

impl<'de> Deserialize<'de> for DedupKinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KindsVisitor;
        impl<'de> Visitor<'de> for KindsVisitor {
            type Value = DedupKinds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a list of names of stages")
            }

            fn visit_bool<E>(self, all: bool) -> Result<DedupKinds, E> {
                Ok(DedupKinds(if all { None } else { Some(Vec::new()) }))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<DedupKinds, A::Error> {
                Ok(DedupKinds(Some(Vec::deserialize(SeqAccessDeserializer::new(list))?)))
            }
        }
        deserializer.deserialize_any(KindsVisitor)
    }
}
