//! The stores in use: one per bucket, container or host, with what it keeps between reads.

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

/// Threads that wait for answers; the requests themselves have others.
const WAITING_THREADS: usize = 2;

/// Where requests are waited for.
static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WAITING_THREADS)
        .thread_name("mpt-remote")
        .enable_time()
        .build()
});

static STORES: Mutex<BTreeMap<String, Arc<Store>>> = Mutex::new(BTreeMap::new());

/// One bucket, container or host.
#[derive(Debug)]
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// How it is read.
    pub(super) options: RemoteOptions,
    fetcher: Fetcher,
    /// Pages of shards.
    pub(super) pages: PageCache,
    /// What objects were when the plan was made, by key.
    planned: Mutex<BTreeMap<String, ObjectIdentity>>,
}

/// What tells one version of an object from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectIdentity {
    /// Its length.
    pub(super) bytes: u64,
    /// The store's tag, or when the object was written where the store has no tags.
    pub(super) tag: String,
}

/// Makes a store readable at `mount://NAME`, or in place of the one that `root` (`s3://BUCKET`) would lead to.
///
/// # Errors
/// [`Error::Remote`] when `root` is no address of a store; [`Error::Io`] when the cache cannot be used.
pub fn mount(root: &str, objects: Arc<dyn ObjectStore>, options: RemoteOptions) -> Result<()> {
    let root = options::address(Path::new(root))?.root.to_owned();
    let store = Arc::new(Store::new(objects, options)?);
    stores().insert(root, store);
    Ok(())
}

/// Says how the store of an address (`s3://BUCKET`) is read, in place of what the environment says.
///
/// # Errors
/// [`Error::Remote`] when `root` is no address of a store, or the environment does not suffice to reach it; [`Error::Io`] when
/// the cache cannot be used.
pub fn configure(root: &str, options: RemoteOptions) -> Result<()> {
    let objects = connect(&options::address(Path::new(root))?)?;
    mount(root, objects, options)
}

/// Ends what [`mount`] began; what is being read goes on.
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

    /// The store and the key of an address.
    pub(super) fn of(path: &Path) -> Result<(Arc<Self>, Key)> {
        let address = options::address(path)?;
        let wrong = |error: object_store::path::Error| remote_error(path, error_chain(&error));
        let key = Key::parse(address.key).map_err(wrong)?;
        if let Some(store) = stores().get(address.root) {
            return Ok((store.clone(), key));
        }
        let store = Arc::new(Self::new(connect(&address)?, RemoteOptions::from_environment()?)?);
        Ok((stores().entry(address.root.to_owned()).or_insert(store).clone(), key))
    }

    /// Looks at an object; one that is in the plan must be as it was then.
    pub(super) fn look(&self, path: &Path, key: &Key) -> Result<ObjectIdentity> {
        let found = ObjectIdentity::of(&self.head(path, key)?);
        let planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        match planned.get(key.as_ref()) {
            Some(planned) if *planned != found => {
                let problem = format!(
                    "was changed after the plan was made: it had {} bytes and {}, now {} and {}; start the build again",
                    planned.bytes, planned.tag, found.bytes, found.tag
                );
                Err(remote_error(path, problem))
            }
            _ => Ok(found),
        }
    }

    /// Looks at an object; `None` where there is none.
    pub(super) fn find(&self, path: &Path, key: &Key) -> Result<Option<ObjectIdentity>> {
        match self.look(path, key) {
            Err(Error::Remote { problem, .. }) if problem == MISSING => Ok(None),
            found => found.map(Some),
        }
    }

    fn head(&self, path: &Path, key: &Key) -> Result<ObjectMeta> {
        let mut problem = String::new();
        for failures in 0..self.options.attempts.max(1) {
            if failures > 0 {
                std::thread::sleep(self.fetcher.wait(failures));
            }
            match wait(self.objects.head(key))? {
                Ok(meta) => return Ok(meta),
                Err(object_store::Error::NotFound { .. }) => return Err(remote_error(path, MISSING)),
                Err(error) => problem = error_chain(&error),
            }
        }
        Err(remote_error(path, problem))
    }

    /// Takes an object as it is now into the plan.
    pub(super) fn plan(&self, path: &Path, key: &Key) -> Result<ObjectIdentity> {
        let known = self.planned.lock().unwrap_or_else(PoisonError::into_inner).get(key.as_ref()).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = ObjectIdentity::of(&self.head(path, key)?);
        self.remember(key, found.clone());
        Ok(found)
    }

    /// Whether there is such an object; it is taken into the plan.
    pub(super) fn is_object(&self, path: &Path, key: &Key) -> Result<bool> {
        match self.head(path, key) {
            Ok(meta) => {
                self.remember(key, ObjectIdentity::of(&meta));
                Ok(true)
            }
            Err(Error::Remote { problem, .. }) if problem == MISSING => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remember(&self, key: &Key, identity: ObjectIdentity) {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.insert(key.to_string(), identity);
    }

    /// The objects whose keys begin with a folder, in the order of their keys; they are taken into the plan.
    pub(super) fn list(&self, path: &Path, folder: Option<&Key>) -> Result<Vec<Key>> {
        let mut problem = String::new();
        for failures in 0..self.options.attempts.max(1) {
            if failures > 0 {
                std::thread::sleep(self.fetcher.wait(failures));
            }
            let listing = futures_util::TryStreamExt::try_collect::<Vec<_>>(self.objects.list(folder));
            match wait(listing)? {
                Ok(mut found) => {
                    found.sort_by(|a, b| a.location.cmp(&b.location));
                    found.iter().for_each(|meta| self.remember(&meta.location, ObjectIdentity::of(meta)));
                    return Ok(found.into_iter().map(|meta| meta.location).collect());
                }
                Err(error) => problem = error_chain(&error),
            }
        }
        Err(remote_error(path, problem))
    }

    /// Fetches ranges of an object beside each other.
    pub(super) fn fetch(
        &self,
        key: &Key,
        identity: &ObjectIdentity,
        ranges: &[Range<u64>],
    ) -> Result<Result<Vec<Vec<u8>>, FetchError>> {
        let ranges = ranges.iter().map(|range| self.range(key, identity, range.clone()));
        wait(try_join_all(ranges))
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

    /// Begins to fetch a range; the answer is waited for by [`PendingRange::wait`].
    pub(super) fn begin(
        self: &Arc<Self>,
        key: &Key,
        identity: &ObjectIdentity,
        range: Range<u64>,
    ) -> Result<PendingRange> {
        let (store, key, identity) = (self.clone(), key.clone(), identity.clone());
        let task = async move { store.range(&key, &identity, range).await };
        Ok(PendingRange(runtime()?.spawn(task)))
    }

    /// How long to wait after so many failures.
    pub(super) fn pause(&self, failures: u32) {
        std::thread::sleep(self.fetcher.wait(failures));
    }
}

/// A range on its way. One that nobody wants any more is not fetched further.
#[derive(Debug)]
pub(super) struct PendingRange(tokio::task::JoinHandle<Result<Vec<u8>, FetchError>>);

impl PendingRange {
    /// Its bytes.
    pub(super) fn wait(mut self) -> Result<Result<Vec<u8>, FetchError>> {
        let joined = wait(&mut self.0)?;
        Ok(joined.unwrap_or_else(|error| Err(FetchError::Other(error.to_string()))))
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

    /// The tag to ask for; one that the store calls weak cannot be asked for.
    fn condition(&self) -> Option<&str> {
        self.tag.strip_prefix("etag ").filter(|tag| !tag.starts_with("W/"))
    }
}

/// What is wrong where there is nothing.
pub(super) const MISSING: &str = "there is no such object; check the address and the credentials";

/// What went wrong at an address.
pub(super) fn remote_error(path: &Path, problem: impl Into<String>) -> Error {
    Error::Remote { url: path.display().to_string(), problem: problem.into() }
}

/// A failure at an address.
pub(super) fn fetch_error(path: &Path, failure: FetchError) -> Error {
    match failure {
        FetchError::Missing => remote_error(path, MISSING),
        FetchError::Changed(problem) => {
            remote_error(path, format!("{problem}; start again with what is there now"))
        }
        FetchError::Length(bytes) => remote_error(
            path,
            format!("has {bytes} bytes now, another number than before; start again with what is there now"),
        ),
        FetchError::Other(problem) => remote_error(path, problem),
    }
}

fn runtime() -> Result<&'static Runtime> {
    let fetch_error = |error: &io::Error| {
        remote_error(Path::new("object stores"), format!("no thread to wait in ({error})"))
    };
    RUNTIME.as_ref().map_err(fetch_error)
}

fn wait<T>(future: impl Future<Output = T>) -> Result<T> {
    Ok(runtime()?.block_on(future))
}
