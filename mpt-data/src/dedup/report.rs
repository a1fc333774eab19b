//! Reports of the stages of deduplication, small enough for the manifest whatever the size of the data.

use std::collections::HashMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use super::config::DedupKind;

/// Most groups of copies that are listed, the largest first.
const LISTED: usize = 5;
/// Bins of the histogram of similarities.
const BINS: usize = 20;

/// Report of one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DedupReport {
    /// Stage.
    pub kind: DedupKind,
    /// Sources that took part, in order.
    pub sources: Vec<DedupSourceReport>,
    /// Groups of copies: kept documents of which copies were dropped.
    pub groups: u64,
    /// Largest groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub largest: Vec<CopyGroup>,
    /// Histogram of the similarity of dropped documents to the one that the ledger names, in steps of 0.05 from 0 to 1; for
    /// stages that estimate it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub similarities: Vec<u64>,
    /// Similarity above which documents were dropped, where the stage chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

/// Report of one stage on one source. Token counts include the tokens around documents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DedupSourceReport {
    /// Name of the source.
    pub name: String,
    /// Documents that reached the stage.
    pub documents: u64,
    /// Documents dropped.
    pub dropped: u64,
    /// Tokens of the dropped documents, as read.
    pub tokens_dropped: u64,
    /// Documents edited.
    pub edited: u64,
    /// Tokens removed from edited documents.
    pub tokens_edited_away: i64,
}

/// Kept document with its copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyGroup {
    /// Id of the kept document.
    pub id: String,
    /// Documents in the group, the kept one included.
    pub documents: u64,
}

/// Counts of a stage. `P` is the location of a document; locations are ordered as documents are.
#[derive(Debug)]
pub(crate) struct DedupTally<P> {
    kind: DedupKind,
    sources: Vec<Option<DedupSourceReport>>,
    copies: HashMap<P, u64>,
    similarities: Vec<u64>,
}

impl<P: Copy + Ord + Hash> DedupTally<P> {
    /// Empty tally, with the names of the sources that take part.
    pub(crate) fn new(kind: DedupKind, sources: Vec<Option<String>>) -> Self {
        let named = |name| DedupSourceReport { name, ..DedupSourceReport::default() };
        let sources = sources.into_iter().map(|name| name.map(named)).collect();
        Self { kind, sources, copies: HashMap::new(), similarities: Vec::new() }
    }

    /// Stage.
    pub(crate) fn kind(&self) -> DedupKind {
        self.kind
    }

    /// Counts a document, and returns its source's counts; `None` where the source takes no part.
    pub(crate) fn count_document(&mut self, source: usize) -> Option<&mut DedupSourceReport> {
        let counts = self.sources[source].as_mut()?;
        counts.documents += 1;
        Some(counts)
    }

    /// Counts the similarity of a dropped document to another one.
    pub(crate) fn count_similarity(&mut self, similarity: f64) {
        self.similarities.resize(BINS, 0);
        let bin = (similarity.clamp(0.0, 1.0) * BINS as f64) as usize;
        self.similarities[bin.min(BINS - 1)] += 1;
    }

    /// Counts a dropped copy of the kept document at `location`.
    pub(crate) fn count_copy(&mut self, location: P) {
        *self.copies.entry(location).or_default() += 1;
    }

    /// Report of the stage; `id` finds the id of a document.
    pub(crate) fn report<E>(
        self,
        threshold: Option<f64>,
        id: impl Fn(P) -> Result<String, E>,
    ) -> Result<DedupReport, E> {
        let groups = self.copies.len() as u64;
        let mut copies: Vec<_> = self.copies.into_iter().collect();
        copies.sort_unstable_by_key(|&(location, count)| (std::cmp::Reverse(count), location));
        copies.truncate(LISTED);
        let group = |(location, count)| Ok(CopyGroup { id: id(location)?, documents: count + 1 });
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
        assert!(tallies.count_document(1).is_none());
        tallies.count_document(0).expect("takes part").dropped += 1;
        for location in [9u32, 1, 2, 2, 3, 3, 4, 5, 6] {
            tallies.count_copy(location);
            tallies.count_similarity(if location == 9 { 1.0 } else { 0.85 });
        }
        let report = tallies.report(None, |location| Ok::<_, ()>(location.to_string())).expect("no errors");
        let largest: Vec<_> =
            report.largest.iter().map(|group| (group.id.as_str(), group.documents)).collect();
        assert_eq!(largest, [("2", 3), ("3", 3), ("1", 2), ("4", 2), ("5", 2)]);
        assert_eq!((report.groups, report.sources.len(), report.sources[0].documents), (7, 1, 1));
        assert_eq!((report.similarities[17], report.similarities[19]), (8, 1));
    }
}
