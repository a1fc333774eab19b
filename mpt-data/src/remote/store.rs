//! Stores in use: one per bucket, container or host, with its cache and its known objects.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use futures_util::future::try_join_all;
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;

use super::connect::connect;
use super::fetch::{FetchError, Fetcher, RangeRequest, error_chain};
use super::options::{self, RemoteOptions};
use super::page_cache::PageCache;
use crate::error::{Error, Result};

/// Threads of the async runtime; requests run on threads of their own.
const WAITING_THREADS: usize = 2;

/// Async runtime of all stores.
static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WAITING_THREADS)
        .thread_name("mpt-remote")
        .enable_time()
        .build()
});

static STORES: Mutex<BTreeMap<String, Arc<Store>>> = Mutex::new(BTreeMap::new());

/// Store: a bucket, container or host.
#[derive(Debug)]
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Settings for reads.
    pub(super) options: RemoteOptions,
    fetcher: Fetcher,
    /// Pages of shards.
    pub(super) pages: PageCache,
    /// Identities of objects in the plan, by key.
    planned: Mutex<BTreeMap<String, ObjectIdentity>>,
}

/// Identity of a version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectIdentity {
    /// Length in bytes.
    pub(super) bytes: u64,
    /// Tag of the store, or the time of writing where the store has no tags.
    pub(super) tag: String,
}

/// Mounts a store at `mount://NAME`, or in place of the one that `root` (`s3://BUCKET`) would lead to.
///
/// # Errors
/// [`Error::Address`] when `root` is no address of a store; [`Error::Io`] when the cache cannot be used.
pub fn mount(root: &str, objects: Arc<dyn ObjectStore>, options: RemoteOptions) -> Result<()> {
    let root = options::address(Path::new(root))?.root.to_owned();
    let store = Arc::new(Store::new(objects, options)?);
    stores().insert(root, store);
    Ok(())
}

/// Sets how the store of an address (`s3://BUCKET`) is read, in place of the environment.
///
/// # Errors
/// [`Error::Address`] when `root` is no address of a store, or the environment does not suffice to reach it; [`Error::Io`] when
/// the cache cannot be used.
pub fn configure(root: &str, options: RemoteOptions) -> Result<()> {
    let objects = connect(&options::address(Path::new(root))?)?;
    mount(root, objects, options)
}

/// Unmounts a store; reads under way continue.
pub fn unmount(root: &str) {
    stores().remove(root.trim_end_matches('/'));
}

fn stores() -> std::sync::MutexGuard<'static, BTreeMap<String, Arc<Store>>> {
    // A panic elsewhere leaves the map whole.
    STORES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    fn new(objects: Arc<dyn ObjectStore>, options: RemoteOptions) -> Result<Self> {
        let pages = PageCache::new(&options)?;
        Ok(Self {
            objects,
            fetcher: Fetcher::new(options.clone()),
            options,
            pages,
            planned: Mutex::default(),
        })
    }

    /// Store and key of an address.
    pub(super) fn for_path(path: &Path) -> Result<(Arc<Self>, Key)> {
        let address = options::address(path)?;
        let wrong = |error: object_store::path::Error| Error::Address {
            url: path.display().to_string(),
            problem: error_chain(&error),
            source: Some(error.into()),
        };
        let key = Key::parse(address.key).map_err(wrong)?;
        if let Some(store) = stores().get(address.root) {
            return Ok((store.clone(), key));
        }
        let store = Arc::new(Self::new(connect(&address)?, RemoteOptions::from_environment()?)?);
        Ok((stores().entry(address.root.to_owned()).or_insert(store).clone(), key))
    }

    /// Identity of an object, which must be that of the plan where the plan has the object.
    pub(super) fn head_unchanged(&self, path: &Path, key: &Key) -> Result<ObjectIdentity> {
        let found = ObjectIdentity::of(&self.head(path, key)?);
        let planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        match planned.get(key.as_ref()) {
            Some(planned) if *planned != found => {
                let problem = format!(
                    "was changed after the plan was made: it had {} bytes and {}, now {} and {}; start the build again",
                    planned.bytes, planned.tag, found.bytes, found.tag
                );
                Err(object_error(path, problem))
            }
            _ => Ok(found),
        }
    }

    /// Identity of an object; `None` where there is none.
    pub(super) fn head_if_exists(&self, path: &Path, key: &Key) -> Result<Option<ObjectIdentity>> {
        match self.head_unchanged(path, key) {
            Err(Error::NoObject { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    fn head(&self, path: &Path, key: &Key) -> Result<ObjectMeta> {
        self.with_retries(path, || block_on(self.objects.head(key)))
    }

    /// Identity of an object, which is added to the plan.
    pub(super) fn head_for_plan(&self, path: &Path, key: &Key) -> Result<ObjectIdentity> {
        let known = self.planned.lock().unwrap_or_else(PoisonError::into_inner).get(key.as_ref()).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = ObjectIdentity::of(&self.head(path, key)?);
        self.remember(key, found.clone());
        Ok(found)
    }

    /// Whether the object exists; it is added to the plan.
    pub(super) fn exists(&self, path: &Path, key: &Key) -> Result<bool> {
        match self.head(path, key) {
            Ok(meta) => {
                self.remember(key, ObjectIdentity::of(&meta));
                Ok(true)
            }
            Err(Error::NoObject { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remember(&self, key: &Key, identity: ObjectIdentity) {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.insert(key.to_string(), identity);
    }

    /// Keys below a folder, in order; their objects are added to the plan.
    pub(super) fn list(&self, path: &Path, folder: Option<&Key>) -> Result<Vec<Key>> {
        let list = || block_on(futures_util::TryStreamExt::try_collect::<Vec<_>>(self.objects.list(folder)));
        let mut found = self.with_retries(path, list)?;
        found.sort_by(|a, b| a.location.cmp(&b.location));
        found.iter().for_each(|meta| self.remember(&meta.location, ObjectIdentity::of(meta)));
        Ok(found.into_iter().map(|meta| meta.location).collect())
    }

    /// Answer to a request, which is retried as often as the options allow.
    fn with_retries<T>(
        &self,
        path: &Path,
        request: impl Fn() -> Result<object_store::Result<T>>,
    ) -> Result<T> {
        let mut failures = 0;
        loop {
            let error = match request()? {
                Ok(answer) => return Ok(answer),
                Err(object_store::Error::NotFound { .. }) => return Err(missing(path)),
                Err(error) => error,
            };
            failures += 1;
            if failures >= self.options.attempts {
                return Err(fetch_error(path, FetchError::from_store(error)));
            }
            self.sleep_backoff(failures);
        }
    }

    /// Fetches ranges of an object concurrently.
    pub(super) fn fetch(
        &self,
        key: &Key,
        identity: &ObjectIdentity,
        ranges: &[Range<u64>],
    ) -> Result<Result<Vec<Vec<u8>>, FetchError>> {
        let ranges = ranges.iter().map(|range| self.range(key, identity, range.clone()));
        block_on(try_join_all(ranges))
    }

    async fn range(
        &self,
        key: &Key,
        identity: &ObjectIdentity,
        range: Range<u64>,
    ) -> Result<Vec<u8>, FetchError> {
        let wanted = RangeRequest { key, range, tag: identity.condition(), bytes: identity.bytes };
        self.fetcher.fetch(&*self.objects, &wanted).await
    }

    /// Starts to fetch a range; [`PendingRange::wait`] returns its bytes.
    pub(super) fn spawn_fetch(
        self: &Arc<Self>,
        key: &Key,
        identity: &ObjectIdentity,
        range: Range<u64>,
    ) -> Result<PendingRange> {
        let (store, key, identity) = (self.clone(), key.clone(), identity.clone());
        let task = async move { store.range(&key, &identity, range).await };
        Ok(PendingRange(runtime()?.spawn(task)))
    }

    /// Sleeps before the next attempt.
    pub(super) fn sleep_backoff(&self, failures: u32) {
        std::thread::sleep(self.fetcher.backoff(failures));
    }
}

/// Range being fetched; dropping it cancels the fetch.
#[derive(Debug)]
pub(super) struct PendingRange(tokio::task::JoinHandle<Result<Vec<u8>, FetchError>>);

impl PendingRange {
    /// Waits for the bytes.
    pub(super) fn wait(mut self) -> Result<Result<Vec<u8>, FetchError>> {
        let joined = block_on(&mut self.0)?;
        Ok(joined.unwrap_or_else(|error| {
            Err(FetchError::Unanswered { problem: error.to_string(), source: Some(error.into()) })
        }))
    }
}

impl Drop for PendingRange {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ObjectIdentity {
    fn of(meta: &ObjectMeta) -> Self {
        let written = || format!("written {}", meta.last_modified.timestamp());
        let tag = meta.e_tag.as_ref().map_or_else(written, |tag| format!("etag {tag}"));
        Self { bytes: meta.size, tag }
    }

    /// Tag for conditional requests; a weak tag cannot be used.
    fn condition(&self) -> Option<&str> {
        self.tag.strip_prefix("etag ").filter(|tag| !tag.starts_with("W/"))
    }
}

/// Error of a missing object.
pub(super) fn missing(path: &Path) -> Error {
    Error::NoObject { url: path.display().to_string() }
}

/// Error of an object that is not as it should be.
pub(super) fn object_error(path: &Path, problem: impl Into<String>) -> Error {
    Error::Object { url: path.display().to_string(), problem: problem.into(), source: None }
}

/// Error of a failed fetch at an address.
pub(super) fn fetch_error(path: &Path, failure: FetchError) -> Error {
    match failure {
        FetchError::Missing => missing(path),
        FetchError::Changed(problem) => {
            object_error(path, format!("{problem}; start again with what is there now"))
        }
        FetchError::Length(bytes) => object_error(
            path,
            format!("has {bytes} bytes now, another number than before; start again with what is there now"),
        ),
        FetchError::Refused(error) => Error::Object {
            url: path.display().to_string(),
            problem: error_chain(&error),
            source: Some(error.into()),
        },
        FetchError::Unanswered { problem, source } => {
            Error::Remote { url: path.display().to_string(), problem, source }
        }
    }
}

fn runtime() -> Result<&'static Runtime> {
    RUNTIME.as_ref().map_err(|error| Error::Remote {
        url: "object stores".to_owned(),
        problem: format!("no thread to wait in ({error})"),
        source: None,
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    Ok(runtime()?.block_on(future))
}
