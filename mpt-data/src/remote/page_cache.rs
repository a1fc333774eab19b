//! Pages from the nearest place that has them: memory, the cache on disk, the store. What is needed soon is fetched ahead.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::disk_cache::DiskCache;
use super::options::RemoteOptions;
use super::page::PageKey;
use crate::error::Result;

/// Pages that may wait to be fetched ahead; what is asked for beyond that is fetched when it is needed.
const MAX_QUEUED: usize = 1024;

/// What fetches a page ahead.
type PrefetchJob = Box<dyn FnOnce() + Send>;

/// The pages that are held.
#[derive(Debug)]
pub(super) struct PageCache {
    memory: Mutex<MemoryCache>,
    /// The pages on disk.
    pub(super) cache: Option<DiskCache>,
    future: Mutex<UpcomingUses>,
    flights: Mutex<HashSet<PageKey>>,
    landed: Condvar,
    ahead: OnceLock<SyncSender<PrefetchJob>>,
    threads: usize,
}

/// Pages in memory, by when they came.
#[derive(Debug)]
struct MemoryCache {
    limit: u64,
    total: u64,
    pages: HashMap<PageKey, (u64, Arc<Vec<u8>>)>,
    order: BTreeMap<u64, PageKey>,
    clock: u64,
}

/// When pages are needed, as far as that was told.
#[derive(Debug, Default)]
struct UpcomingUses {
    next: u64,
    uses: HashMap<PageKey, VecDeque<u64>>,
}

impl PageCache {
    /// Nothing held yet.
    pub(super) fn new(options: &RemoteOptions) -> Result<Self> {
        let limit = options.memory_bytes;
        let memory = MemoryCache { limit, total: 0, pages: HashMap::new(), order: BTreeMap::new(), clock: 0 };
        Ok(Self {
            memory: Mutex::new(memory),
            cache: options.cache.as_ref().map(DiskCache::open).transpose()?,
            future: Mutex::default(),
            flights: Mutex::default(),
            landed: Condvar::new(),
            ahead: OnceLock::new(),
            threads: options.prefetch_threads,
        })
    }

    /// A page that is in memory.
    pub(super) fn in_memory(&self, key: &PageKey) -> Option<Arc<Vec<u8>>> {
        lock(&self.memory).pages.get(key).map(|(_, page)| page.clone())
    }

    /// Keeps a page, in memory and on disk.
    pub(super) fn keep(&self, key: &PageKey, page: &Arc<Vec<u8>>) -> Result<()> {
        let next_use = |key: &PageKey| lock(&self.future).next_use(key);
        lock(&self.memory).put(key, page, &next_use);
        match &self.cache {
            Some(cache) => cache.put(key, page, &next_use),
            None => Ok(()),
        }
    }

    /// Forgets a page that turned out to be damaged.
    pub(super) fn forget(&self, key: &PageKey) -> Result<()> {
        lock(&self.memory).remove(key);
        self.cache.as_ref().map_or(Ok(()), |cache| cache.remove(key))
    }

    /// Waits until nobody else is fetching the page; what is returned says that the caller is.
    pub(super) fn take_off(&self, key: &PageKey) -> FetchClaim<'_> {
        let mut flights = lock(&self.flights);
        while !flights.insert(key.clone()) {
            flights = self.landed.wait(flights).unwrap_or_else(PoisonError::into_inner);
        }
        FetchClaim { pages: self, key: key.clone() }
    }

    /// Takes down that a page will be needed, after all that were announced before.
    pub(super) fn announce(&self, key: &PageKey) {
        let mut future = lock(&self.future);
        future.next += 1;
        let at = future.next;
        future.uses.entry(key.clone()).or_default().push_back(at);
    }

    /// A page was needed now.
    pub(super) fn used(&self, key: &PageKey) {
        let mut future = lock(&self.future);
        let Some(uses) = future.uses.get_mut(key) else { return };
        uses.pop_front();
        if uses.is_empty() {
            future.uses.remove(key);
        }
    }

    /// Whether a page needs no fetching.
    pub(super) fn has(&self, key: &PageKey) -> bool {
        lock(&self.memory).pages.contains_key(key) || self.cache.as_ref().is_some_and(|cache| cache.has(key))
    }

    /// Whether all pages announced could be held at once, each of so many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let room = self.cache.as_ref().map_or(0, DiskCache::limit) + lock(&self.memory).limit;
        lock(&self.future).uses.len() as u64 * bytes as u64 <= room
    }

    /// Lets another thread do something soon, or nobody when too much waits already.
    pub(super) fn ahead(&self, job: PrefetchJob) {
        if self.threads > 0 {
            let sender = self.ahead.get_or_init(|| start(self.threads));
            // A full queue: the page is fetched when it is needed.
            let _ = sender.try_send(job);
        }
    }
}

/// A page that is being fetched.
#[derive(Debug)]
pub(super) struct FetchClaim<'a> {
    pages: &'a PageCache,
    key: PageKey,
}

impl Drop for FetchClaim<'_> {
    fn drop(&mut self) {
        lock(&self.pages.flights).remove(&self.key);
        self.pages.landed.notify_all();
    }
}

impl MemoryCache {
    /// Keeps a page; the oldest that nobody is known to need goes for it, else the one needed last.
    fn put(&mut self, key: &PageKey, page: &Arc<Vec<u8>>, next_use: &dyn Fn(&PageKey) -> Option<u64>) {
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

/// Threads that do what they are sent, and end when nobody can send any more.
fn start(threads: usize) -> SyncSender<PrefetchJob> {
    let (sender, receiver) = sync_channel::<PrefetchJob>(MAX_QUEUED);
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..threads {
        let receiver = receiver.clone();
        // Where no thread can be had, pages are fetched when they are needed.
        let _ = std::thread::Builder::new().name("mpt-ahead".to_owned()).spawn(move || work(&receiver));
    }
    sender
}

fn work(jobs: &Mutex<Receiver<PrefetchJob>>) {
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
