//! What each stage of deduplication did: small enough for the manifest, whatever the size of the data.

use std::collections::HashMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use super::config::DedupKind;

/// Groups of copies that are listed, the largest first.
const LISTED: usize = 5;
/// Bins of the histogram of similarities.
const BINS: usize = 20;

/// What one stage did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DedupReport {
    /// The stage.
    pub kind: DedupKind,
    /// The sources that took part, in order.
    pub sources: Vec<DedupSourceReport>,
    /// Documents that stay and have copies which do not.
    pub groups: u64,
    /// The largest groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub largest: Vec<CopyGroup>,
    /// Documents dropped by their similarity to the one that the ledger names, in steps of 0.05 from 0 to 1; for stages
    /// that estimate it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub similarities: Vec<u64>,
    /// Above it a document was dropped, where the stage chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

/// What a stage did to a source. Tokens are counted with those around each document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DedupSourceReport {
    /// Its name.
    pub name: String,
    /// Documents that came to the stage.
    pub documents: u64,
    /// Documents it dropped.
    pub dropped: u64,
    /// Their tokens as they were read.
    pub tokens_dropped: u64,
    /// Documents it edited.
    pub edited: u64,
    /// The tokens it took out of them.
    pub tokens_edited_away: i64,
}

/// A document that stays, and how many copies were found with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyGroup {
    /// The id of the document that stays.
    pub id: String,
    /// Documents of the group, with it.
    pub documents: u64,
}

/// Counts what a stage does. `P` is the place of a document, in the order in which documents come.
#[derive(Debug)]
pub(crate) struct DedupTally<P> {
    kind: DedupKind,
    sources: Vec<Option<DedupSourceReport>>,
    copies: HashMap<P, u64>,
    similarities: Vec<u64>,
}

impl<P: Copy + Ord + Hash> DedupTally<P> {
    /// Nothing counted; the sources that take no part are `None`.
    pub(crate) fn new(kind: DedupKind, sources: Vec<Option<String>>) -> Self {
        let named = |name| DedupSourceReport { name, ..DedupSourceReport::default() };
        let sources = sources.into_iter().map(|name| name.map(named)).collect();
        Self { kind, sources, copies: HashMap::new(), similarities: Vec::new() }
    }

    /// The stage.
    pub(crate) fn kind(&self) -> DedupKind {
        self.kind
    }

    /// A document came; `None` where its source takes no part.
    pub(crate) fn see(&mut self, source: usize) -> Option<&mut DedupSourceReport> {
        let counts = self.sources[source].as_mut()?;
        counts.documents += 1;
        Some(counts)
    }

    /// A document goes for its similarity to another one.
    pub(crate) fn like(&mut self, similarity: f64) {
        self.similarities.resize(BINS, 0);
        let bin = (similarity.clamp(0.0, 1.0) * BINS as f64) as usize;
        self.similarities[bin.min(BINS - 1)] += 1;
    }

    /// A document goes as one of the copies of another one, which stays.
    pub(crate) fn copy_of(&mut self, place: P) {
        *self.copies.entry(place).or_default() += 1;
    }

    /// The report, with the ids that `id` finds.
    pub(crate) fn report<E>(
        self,
        threshold: Option<f64>,
        id: impl Fn(P) -> Result<String, E>,
    ) -> Result<DedupReport, E> {
        let groups = self.copies.len() as u64;
        let mut copies: Vec<_> = self.copies.into_iter().collect();
        copies.sort_unstable_by_key(|&(place, count)| (std::cmp::Reverse(count), place));
        copies.truncate(LISTED);
        let group = |(place, count)| Ok(CopyGroup { id: id(place)?, documents: count + 1 });
        Ok(DedupReport {
            kind: self.kind,
            sources: self.sources.into_iter().flatten().collect(),
            groups,
            largest: copies.into_iter().map(group).collect::<Result<_, E>>()?,
            similarities: self.similarities,
            threshold,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_groups_are_listed_first_and_ties_in_order() {
        let names = vec![Some("web".to_owned()), None];
        let mut tallies = DedupTally::new(DedupKind::MinHash, names);
        assert!(tallies.see(1).is_none());
        tallies.see(0).expect("takes part").dropped += 1;
        for place in [9u32, 1, 2, 2, 3, 3, 4, 5, 6] {
            tallies.copy_of(place);
            tallies.like(if place == 9 { 1.0 } else { 0.85 });
        }
        let report = tallies.report(None, |place| Ok::<_, ()>(place.to_string())).expect("no errors");
        let largest: Vec<_> =
            report.largest.iter().map(|group| (group.id.as_str(), group.documents)).collect();
        assert_eq!(largest, [("2", 3), ("3", 3), ("1", 2), ("4", 2), ("5", 2)]);
        assert_eq!((report.groups, report.sources.len(), report.sources[0].documents), (7, 1, 1));
        assert_eq!((report.similarities[17], report.similarities[19]), (8, 1));
    }
}
