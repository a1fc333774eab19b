//! LRU cache of blocks of equal size, which counts its misses.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Blocks that a machine caches, and its requests.
pub(super) struct LruCache {
    capacity: usize,
    piece_bytes: u64,
    /// Ranges of a request.
    ranges: u64,
    clock: u64,
    /// Time of each block's last use, and the blocks by that time.
    used: HashMap<(usize, u64), u64>,
    by_time: BTreeMap<u64, (usize, u64)>,
    pub(super) requests: u64,
    pub(super) bytes: u64,
    pub(super) wanted: u64,
    pub(super) missed: u64,
}

impl LruCache {
    pub(super) fn new(cache_bytes: u64, piece_bytes: u64, ranges: u64) -> Self {
        Self {
            capacity: (cache_bytes / piece_bytes) as usize,
            piece_bytes,
            ranges,
            clock: 0,
            used: HashMap::new(),
            by_time: BTreeMap::new(),
            requests: 0,
            bytes: 0,
            wanted: 0,
            missed: 0,
        }
    }

    /// Reads blocks of a source. Missing ones are requested, `together` with one request per range.
    pub(super) fn request(&mut self, source: usize, pieces: Range<u64>, together: bool) {
        let mut missing = 0;
        for piece in pieces {
            self.wanted += 1;
            missing += u64::from(!self.touch((source, piece)));
        }
        self.missed += missing;
        self.bytes += missing * self.piece_bytes;
        self.requests += self.ranges * if together { missing.min(1) } else { missing };
    }

    /// Whether the block was cached; it is cached from now on.
    fn touch(&mut self, piece: (usize, u64)) -> bool {
        self.clock += 1;
        let last = self.used.insert(piece, self.clock);
        if let Some(last) = last {
            self.by_time.remove(&last);
        }
        self.by_time.insert(self.clock, piece);
        if self.used.len() > self.capacity {
            let (_, oldest) = self.by_time.pop_first().expect("there are pieces");
            self.used.remove(&oldest);
        }
        last.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_piece_goes_first() {
        let mut cache = LruCache::new(25, 10, 2);
        for piece in [0, 1, 0, 2, 0, 1] {
            cache.request(0, piece..piece + 1, true);
        }
        // 1 was forgotten for 2, then came again.
        assert_eq!((cache.wanted, cache.missed, cache.requests, cache.bytes), (6, 4, 8, 40));
        let mut none = LruCache::new(5, 10, 1);
        none.request(0, 3..6, true);
        none.request(0, 3..6, false);
        assert_eq!((none.missed, none.requests), (6, 4));
    }
}
