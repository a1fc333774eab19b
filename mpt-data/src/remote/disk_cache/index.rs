//! Index of the cached pages, by use.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::remote::page::PageKey;

/// Pages that this process knows to be in the folder.
#[derive(Debug, Default)]
pub(super) struct CacheIndex {
    pub(super) pages: BTreeMap<PageKey, CachedPage>,
    /// Pages by the time of their last use.
    order: BTreeMap<u64, PageKey>,
    total: u64,
    clock: u64,
    /// Epoch of the journal that was read.
    pub(super) epoch: Vec<u8>,
    /// Bytes of the journal that were read.
    pub(super) journal: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct CachedPage {
    bytes: u64,
    used: u64,
}

/// Time of a page's next use, as far as it is known: a larger number is later.
pub(in crate::remote) type NextUse<'a> = &'a dyn Fn(&PageKey) -> Option<u64>;

impl CacheIndex {
    pub(super) fn insert(&mut self, key: PageKey, bytes: u64) {
        self.remove(&key);
        self.clock += 1;
        self.total += bytes;
        self.order.insert(self.clock, key.clone());
        self.pages.insert(key, CachedPage { bytes, used: self.clock });
    }

    pub(super) fn remove(&mut self, key: &PageKey) {
        if let Some(page) = self.pages.remove(key) {
            self.order.remove(&page.used);
            self.total -= page.bytes;
        }
    }

    /// Marks a page as used now.
    pub(super) fn touch(&mut self, key: &PageKey) {
        if let Some(page) = self.pages.get(key).copied() {
            self.insert(key.clone(), page.bytes);
        }
    }

    /// Pages to evict so that `bytes` fit: least recently used ones without a known next use, then those needed last.
    ///
    /// `None` where a page would have to go that is needed before `own`.
    pub(super) fn evictions(
        &self,
        bytes: u64,
        limit: u64,
        own: u64,
        next_use: NextUse<'_>,
    ) -> Option<Vec<PageKey>> {
        let mut excess = (self.total + bytes).saturating_sub(limit);
        let (mut evictions, mut needed) = (Vec::new(), Vec::new());
        for key in self.order.values() {
            if excess == 0 {
                return Some(evictions);
            }
            match next_use(key) {
                Some(next) => needed.push((next, key)),
                None => {
                    excess = excess.saturating_sub(self.pages[key].bytes);
                    evictions.push(key.clone());
                }
            }
        }
        needed.sort_unstable_by_key(|(next, _)| Reverse(*next));
        for (next, key) in needed {
            if excess == 0 {
                break;
            }
            if next < own {
                return None;
            }
            excess = excess.saturating_sub(self.pages[key].bytes);
            evictions.push(key.clone());
        }
        (excess == 0).then_some(evictions)
    }
}
