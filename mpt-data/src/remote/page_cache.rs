//! Page cache: pages in memory and on disk, and the prefetch of pages that are needed soon.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::disk_cache::DiskCache;
use super::options::RemoteOptions;
use super::page::PageKey;
use crate::error::Result;

/// Most queued prefetches; pages beyond that are fetched on demand.
const MAX_QUEUED: usize = 1024;

/// Prefetch of a page.
type PrefetchJob = Box<dyn FnOnce() + Send>;

/// Cached pages of a store.
#[derive(Debug)]
pub(super) struct PageCache {
    memory: Mutex<MemoryCache>,
    /// Pages on disk.
    pub(super) cache: Option<DiskCache>,
    upcoming: Mutex<UpcomingUses>,
    in_flight: Mutex<HashSet<PageKey>>,
    fetch_ended: Condvar,
    prefetcher: OnceLock<SyncSender<PrefetchJob>>,
    threads: usize,
}

/// Pages in memory, by age.
#[derive(Debug)]
struct MemoryCache {
    limit: u64,
    total: u64,
    pages: HashMap<PageKey, (u64, Arc<Vec<u8>>)>,
    order: BTreeMap<u64, PageKey>,
    clock: u64,
}

/// Announced uses of pages; a larger number is a later use.
#[derive(Debug, Default)]
struct UpcomingUses {
    next: u64,
    uses: HashMap<PageKey, VecDeque<u64>>,
}

impl PageCache {
    /// Empty cache.
    pub(super) fn new(options: &RemoteOptions) -> Result<Self> {
        let limit = options.memory_bytes;
        let memory = MemoryCache { limit, total: 0, pages: HashMap::new(), order: BTreeMap::new(), clock: 0 };
        Ok(Self {
            memory: Mutex::new(memory),
            cache: options.cache.as_ref().map(DiskCache::open).transpose()?,
            upcoming: Mutex::default(),
            in_flight: Mutex::default(),
            fetch_ended: Condvar::new(),
            prefetcher: OnceLock::new(),
            threads: options.prefetch_threads,
        })
    }

    /// Page in memory.
    pub(super) fn in_memory(&self, key: &PageKey) -> Option<Arc<Vec<u8>>> {
        lock(&self.memory).pages.get(key).map(|(_, page)| page.clone())
    }

    /// Inserts a page, in memory and on disk.
    pub(super) fn insert(&self, key: &PageKey, page: &Arc<Vec<u8>>) -> Result<()> {
        let next_use = |key: &PageKey| lock(&self.upcoming).next_use(key);
        lock(&self.memory).insert(key, page, &next_use);
        match &self.cache {
            Some(cache) => cache.insert(key, page, &next_use),
            None => Ok(()),
        }
    }

    /// Removes a damaged page.
    pub(super) fn remove(&self, key: &PageKey) -> Result<()> {
        lock(&self.memory).remove(key);
        self.cache.as_ref().map_or(Ok(()), |cache| cache.remove(key))
    }

    /// Waits until no other thread fetches the page, and claims the fetch.
    pub(super) fn claim_fetch(&self, key: &PageKey) -> FetchClaim<'_> {
        let mut in_flight = lock(&self.in_flight);
        while !in_flight.insert(key.clone()) {
            in_flight = self.fetch_ended.wait(in_flight).unwrap_or_else(PoisonError::into_inner);
        }
        FetchClaim { pages: self, key: key.clone() }
    }

    /// Announces a use of a page, after all announced before.
    pub(super) fn expect_use(&self, key: &PageKey) {
        let mut upcoming = lock(&self.upcoming);
        upcoming.next += 1;
        let at = upcoming.next;
        upcoming.uses.entry(key.clone()).or_default().push_back(at);
    }

    /// Consumes the next announced use of a page.
    pub(super) fn consume_use(&self, key: &PageKey) {
        let mut upcoming = lock(&self.upcoming);
        let Some(uses) = upcoming.uses.get_mut(key) else { return };
        uses.pop_front();
        if uses.is_empty() {
            upcoming.uses.remove(key);
        }
    }

    /// Whether the page is in memory or on disk.
    pub(super) fn contains(&self, key: &PageKey) -> bool {
        lock(&self.memory).pages.contains_key(key)
            || self.cache.as_ref().is_some_and(|cache| cache.contains(key))
    }

    /// Whether all announced pages fit at once, each of `bytes` bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let room = self.cache.as_ref().map_or(0, DiskCache::limit) + lock(&self.memory).limit;
        lock(&self.upcoming).uses.len() as u64 * bytes as u64 <= room
    }

    /// Queues a prefetch; a full queue drops it.
    pub(super) fn prefetch(&self, job: PrefetchJob) {
        if self.threads > 0 {
            let sender = self.prefetcher.get_or_init(|| spawn_workers(self.threads));
            // The page of a dropped prefetch is fetched on demand.
            let _ = sender.try_send(job);
        }
    }
}

/// Claim on the fetch of a page.
#[derive(Debug)]
pub(super) struct FetchClaim<'a> {
    pages: &'a PageCache,
    key: PageKey,
}

impl Drop for FetchClaim<'_> {
    fn drop(&mut self) {
        lock(&self.pages.in_flight).remove(&self.key);
        self.pages.fetch_ended.notify_all();
    }
}

impl MemoryCache {
    /// Inserts a page. The oldest page without an announced use is evicted for it, else the one needed last.
    fn insert(&mut self, key: &PageKey, page: &Arc<Vec<u8>>, next_use: &dyn Fn(&PageKey) -> Option<u64>) {
        self.remove(key);
        self.clock += 1;
        self.total += page.len() as u64;
        self.pages.insert(key.clone(), (self.clock, page.clone()));
        self.order.insert(self.clock, key.clone());
        while self.total > self.limit && self.pages.len() > 1 {
            let newest = self.clock;
            let others = self.order.iter().filter(|(at, _)| **at != newest);
            let victim =
                others.max_by_key(|(at, key)| (next_use(key).unwrap_or(u64::MAX), std::cmp::Reverse(**at)));
            let Some(victim) = victim.map(|(_, key)| key.clone()) else { return };
            self.remove(&victim);
        }
    }

    fn remove(&mut self, key: &PageKey) {
        if let Some((at, page)) = self.pages.remove(key) {
            self.order.remove(&at);
            self.total -= page.len() as u64;
        }
    }
}

impl UpcomingUses {
    fn next_use(&self, key: &PageKey) -> Option<u64> {
        self.uses.get(key)?.front().copied()
    }
}

/// Threads that run queued jobs until the channel closes.
fn spawn_workers(threads: usize) -> SyncSender<PrefetchJob> {
    let (sender, receiver) = sync_channel::<PrefetchJob>(MAX_QUEUED);
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..threads {
        let receiver = receiver.clone();
        // Without a thread, pages are fetched on demand.
        let _ = std::thread::Builder::new().name("mpt-ahead".to_owned()).spawn(move || run_jobs(&receiver));
    }
    sender
}

fn run_jobs(jobs: &Mutex<Receiver<PrefetchJob>>) {
    loop {
        let job = lock(jobs).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
