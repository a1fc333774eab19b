//! SemDeDup: in each cluster, the documents nearest in meaning to an earlier one are dropped.
//!
//! After Abbas et al. 2023: the documents of a cluster are ordered, each has a greatest cosine to an earlier one, and those
//! above a threshold are dropped. Here the share to keep decides the threshold: it is the quantile that leaves exactly that
//! many documents. The first document of a cluster is never dropped.

use rayon::prelude::*;

use super::config::{KeepFirst, SemDedup};
use super::kmeans::{Clusters, Embeddings, cluster};
use crate::filter::ngrams::fmix64;

/// Most clusters by default.
const MAX_CLUSTERS: usize = 50_000;

/// Document and its nearest neighbor among the earlier ones of its cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SemanticMatch {
    /// Document.
    pub(crate) document: u32,
    /// Nearest earlier document.
    pub(crate) to: u32,
    /// Cosine of the two.
    pub(crate) cosine: f64,
}

/// Documents to drop, the nearest first.
pub(crate) fn semantic_duplicates(vectors: &Embeddings, settings: &SemDedup) -> Vec<SemanticMatch> {
    let count = settings.clusters.unwrap_or_else(|| (vectors.len() as f64).sqrt().ceil() as usize);
    let clusters = cluster(vectors, count.min(MAX_CLUSTERS), settings.iterations, settings.seed);
    let members = clusters.members.par_iter().enumerate();
    let found = members.flat_map_iter(|(index, members)| {
        nearest(vectors, &ordered(vectors, &clusters, index, members, settings))
    });
    let mut found: Vec<_> = found.collect();
    found.par_sort_unstable_by(|a, b| b.cosine.total_cmp(&a.cosine).then(b.document.cmp(&a.document)));
    found.truncate((vectors.len() as f64 * (1.0 - settings.keep)).round() as usize);
    found
}

/// Documents of a cluster in the order in which they are kept.
fn ordered(
    vectors: &Embeddings,
    clusters: &Clusters,
    cluster: usize,
    members: &[u32],
    settings: &SemDedup,
) -> Vec<u32> {
    let key = |document: u32| match settings.keep_first {
        KeepFirst::Hard => clusters.cosine_to_center(cluster, vectors, document),
        KeepFirst::Easy => -clusters.cosine_to_center(cluster, vectors, document),
        KeepFirst::Random => fmix64(fmix64(settings.seed) ^ u64::from(document)) as f64,
    };
    let mut order: Vec<_> = members.iter().map(|&document| (key(document), document)).collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    order.into_iter().map(|(_, document)| document).collect()
}

/// Nearest earlier document of each document but the first.
fn nearest(vectors: &Embeddings, order: &[u32]) -> Vec<SemanticMatch> {
    let before = |at: usize| {
        let document = order[at];
        let cosines = order[..at].iter().map(|&to| SemanticMatch {
            document,
            to,
            cosine: vectors.cosine(document, to),
        });
        cosines.reduce(|best, next| if next.cosine > best.cosine { next } else { best })
    };
    (1..order.len()).filter_map(before).collect()
}

#[cfg(test)]
mod tests {
    use super::super::kmeans::tests::around;
    use super::*;

    fn settings(keep: f64, keep_first: KeepFirst) -> SemDedup {
        SemDedup {
            model: String::new(),
            keep,
            clusters: None,
            iterations: 20,
            tokens: 512,
            keep_first,
            seed: 1,
        }
    }

    #[test]
    fn the_share_asked_for_stays_whatever_the_order() {
        let vectors = around(1000, 7, 12, 0.5);
        for keep_first in [KeepFirst::Hard, KeepFirst::Easy, KeepFirst::Random] {
            for (keep, goes) in [(1.0, 0), (0.8, 200), (0.5, 500)] {
                assert_eq!(semantic_duplicates(&vectors, &settings(keep, keep_first)).len(), goes);
            }
        }
        // One of each cluster stays.
        let gone = semantic_duplicates(&vectors, &settings(0.0, KeepFirst::Hard)).len();
        assert!((960..1000).contains(&gone), "{gone}");
    }

    #[test]
    fn copies_go_first() {
        let mut vectors = around(400, 5, 12, 0.5);
        let copies = around(20, 5, 12, 0.5);
        for at in 0..20 {
            let vector: Vec<f32> = copies.get(at).iter().map(|value| value * 3.0).collect();
            assert!(vectors.push(&vector));
        }
        let gone = semantic_duplicates(&vectors, &settings(400.0 / 420.0, KeepFirst::Hard));
        assert_eq!(gone.len(), 20);
        for found in gone {
            assert_eq!(found.document.abs_diff(found.to), 400, "{found:?}");
            assert!(found.cosine > 0.999_999);
        }
    }

    #[test]
    fn threads_change_nothing() {
        let vectors = around(500, 7, 13, 0.5);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| semantic_duplicates(&vectors, &settings(0.7, KeepFirst::Hard)))
        };
        assert_eq!(on(1), on(3));
    }
}
