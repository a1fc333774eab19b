//! Locality-sensitive hashing: documents that agree in a band of their signatures are compared, and similar ones are united.
//!
//! Two documents with a share `s` of n-grams in common agree in one of `b` bands of `r` hashes with probability
//! `1 - (1 - s^r)^b`. Memory is `8 · bands + 8` bytes a document, and 16 more while a band is sorted.

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::config::MinHash;
use super::union_find::UnionFind;
use crate::error::Result;

/// Most documents of a bucket that later ones are compared with: a bound for texts that agree in a band and nothing else.
const MAX_LEADERS: usize = 64;

/// Hashes of the signature bands of all documents.
#[derive(Debug)]
pub(crate) struct LshBands {
    bands: usize,
    rows: usize,
    /// `[documents, bands]`
    keys: Vec<u64>,
}

impl LshBands {
    /// Bands of no document.
    pub(crate) fn new(settings: &MinHash) -> Self {
        Self { bands: settings.bands, rows: settings.rows, keys: Vec::new() }
    }

    /// Adds the next document.
    pub(crate) fn push(&mut self, signature: &[u32]) {
        let mut bytes = Vec::with_capacity(4 * self.rows);
        for (band, hashes) in signature.chunks_exact(self.rows).enumerate() {
            bytes.clear();
            bytes.extend(hashes.iter().flat_map(|hash| hash.to_le_bytes()));
            self.keys.push(xxh3_64_with_seed(&bytes, band as u64));
        }
    }

    fn documents(&self) -> u32 {
        u32::try_from(self.keys.len() / self.bands).expect("documents are fewer than 2^32")
    }

    /// Hash of a band of each document, and the document, sorted.
    fn sorted(&self, band: usize) -> Vec<(u64, u32)> {
        let key = |document: u32| self.keys[document as usize * self.bands + band];
        let mut order: Vec<_> = (0..self.documents()).map(|document| (key(document), document)).collect();
        order.par_sort_unstable();
        order
    }
}

/// First document of each document's component: a document that stays is its own.
///
/// `similarity` is called for pairs that agree in a band. The result does not depend on threads.
///
/// # Errors
/// Those of `similarity` and of `on_band`, which is called after each band.
pub(crate) fn near_duplicates(
    bands: &LshBands,
    threshold: f64,
    similarity: &(dyn Fn(u32, u32) -> Result<f64> + Sync),
    mut on_band: impl FnMut() -> Result<()>,
) -> Result<Vec<u32>> {
    let mut components = UnionFind::new(bands.documents());
    for band in 0..bands.bands {
        let sorted = bands.sorted(band);
        let groups: Vec<_> = sorted.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1).collect();
        let pairs = groups.par_iter().map(|group| similar_pairs(group, &components, threshold, similarity));
        for (a, b) in pairs.collect::<Result<Vec<_>>>()?.into_iter().flatten() {
            components.union(a, b);
        }
        on_band()?;
    }
    Ok((0..bands.documents()).map(|document| components.root(document)).collect())
}

/// Similar pairs of a bucket: each document with the first similar leader. A document without one becomes a leader.
fn similar_pairs(
    group: &[(u64, u32)],
    components: &UnionFind,
    threshold: f64,
    similarity: &(dyn Fn(u32, u32) -> Result<f64> + Sync),
) -> Result<Vec<(u32, u32)>> {
    let (mut leaders, mut pairs): (Vec<u32>, Vec<_>) = (Vec::new(), Vec::new());
    for &(_, document) in group {
        let own = components.root(document);
        if leaders.iter().any(|&leader| components.root(leader) == own) {
            continue;
        }
        let mut like = None;
        for &leader in &leaders {
            if similarity(leader, document)? >= threshold {
                like = Some(leader);
                break;
            }
        }
        match like {
            Some(leader) => pairs.push((leader, document)),
            None if leaders.len() < MAX_LEADERS => leaders.push(document),
            None => {}
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::minhash::{MinHasher, similarity};
    use crate::filter::ngrams::{NgramHashes, fmix64};

    /// Texts of distinct words, so that each word changed changes five runs.
    fn word(number: u64) -> String {
        (0..8).map(|at| char::from(b'a' + ((fmix64(number + 7) >> (5 * at)) & 31) as u8 % 26)).collect()
    }

    fn found(texts: &[String], settings: &MinHash) -> Vec<u32> {
        let hasher = MinHasher::new(settings);
        let signatures: Vec<_> =
            texts.iter().map(|text| hasher.signature(text, &mut NgramHashes::default())).collect();
        let mut bands = LshBands::new(settings);
        signatures.iter().for_each(|signature| bands.push(signature));
        let similar = |a: u32, b: u32| Ok(similarity(&signatures[a as usize], &signatures[b as usize]));
        near_duplicates(&bands, settings.threshold, &similar, || Ok(())).expect("no errors")
    }

    /// `count` pairs of texts of 400 words whose last `changed` differ.
    fn pairs(count: u64, changed: u64) -> Vec<String> {
        let text = |words: &mut dyn Iterator<Item = u64>| words.map(word).collect::<Vec<_>>().join(" ");
        let pair = |pair: u64| {
            let at = pair * 1000;
            [
                text(&mut (at..at + 400)),
                text(&mut (at..at + 400 - changed).chain(at + 500..at + 500 + changed)),
            ]
        };
        (0..count).flat_map(pair).collect()
    }

    /// Of 396 runs 352 are in common, so of 440 in all: a Jaccard similarity of 0.8. The banding alone finds
    /// 1 - (1 - 0.8^8)^14 = 0.9236 of such pairs.
    #[test]
    fn near_copies_at_a_jaccard_of_four_fifths_are_found() {
        let texts = pairs(1500, 44);
        let first = found(&texts, &MinHash::default());
        let joined = (0..1500).filter(|pair| first[2 * pair + 1] == 2 * *pair as u32).count();
        let recall = joined as f64 / 1500.0;
        assert!(recall >= 0.92, "{recall}");
        let wrong = (0..3000).filter(|&at| first[at] != at as u32 && first[at] != at as u32 - 1).count();
        assert_eq!(wrong, 0, "documents of different pairs are not joined");
    }

    /// A Jaccard similarity of 0.43: agreeing bands are rare, and comparing refuses them.
    #[test]
    fn distinct_documents_stay() {
        let first = found(&pairs(500, 158), &MinHash::default());
        assert!(first.iter().zip(0..).all(|(&first, at)| first == at));
    }

    #[test]
    fn the_first_of_a_chain_stays_whatever_the_threads() {
        // Each text has its predecessor's words but the first eight, which are new at its end.
        let texts: Vec<_> = (0..60u64)
            .map(|at| (8 * at..8 * at + 400).map(word).collect::<Vec<_>>().join(" "))
            .rev()
            .collect();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| found(&texts, &MinHash::default()))
        };
        let first = on(1);
        assert_eq!(first, on(4));
        assert!(first.iter().all(|&least| least == 0), "{first:?}");
    }
}
