//! An object store in memory that fails as stores do, the same way for the same seed.

use std::collections::HashMap;
use std::fmt;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Faults {
    pub(super) seed: u64,
    /// Of a thousand requests, how many fail.
    pub(super) rate: u64,
    /// How often the same request fails at most; `usize::MAX`: nothing ever comes.
    pub(super) times: usize,
    /// Every how many requests one gets no answer for a long time; 0: none does.
    pub(super) stuck_every: usize,
}

impl Faults {
    pub(super) const NONE: Self = Self { seed: 0, rate: 0, times: 0, stuck_every: 0 };
}

#[derive(Debug)]
pub(super) struct Faulty {
    inner: InMemory,
    faults: Faults,
    asked: Mutex<HashMap<String, usize>>,
    /// Requests for content so far.
    pub(super) requests: AtomicUsize,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Slow,
    Unavailable,
    Short,
    Broken,
    Wrong,
}

impl Faulty {
    /// Holds the files of a folder, under `name/`.
    pub(super) fn with_folder(folder: &FilePath, name: &str, faults: Faults) -> Arc<Self> {
        let store =
            Self { inner: InMemory::new(), faults, asked: Mutex::default(), requests: AtomicUsize::new(0) };
        store.upload(folder, name);
        Arc::new(store)
    }

    fn upload(&self, folder: &FilePath, name: &str) {
        for entry in std::fs::read_dir(folder).expect("listable") {
            let path = entry.expect("listable").path();
            let name = format!("{name}/{}", path.file_name().expect("has one").to_string_lossy());
            if path.is_dir() {
                self.upload(&path, &name);
            } else {
                self.write(&name, std::fs::read(&path).expect("readable"));
            }
        }
    }

    pub(super) fn write(&self, name: &str, bytes: Vec<u8>) {
        let path = Path::from(name);
        self.inner.put(&path, bytes.into()).now_or_never().expect("nothing to wait for").expect("written");
    }

    pub(super) fn delete(&self, name: &str) {
        let path = Path::from(name);
        futures_util::FutureExt::now_or_never(self.inner.delete(&path))
            .expect("nothing to wait for")
            .expect("gone");
    }

    fn fault(&self, what: &str, may_be_wrong: bool) -> Option<Fault> {
        let nth = {
            let mut asked = self.asked.lock().expect("sound");
            let nth = asked.entry(what.to_owned()).or_default();
            *nth += 1;
            *nth
        };
        if nth > self.faults.times {
            return None;
        }
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(format!("{what} {nth}").as_bytes(), self.faults.seed);
        if hash % 1000 >= self.faults.rate {
            return None;
        }
        if self.faults.times == usize::MAX {
            return Some(Fault::Unavailable);
        }
        Some(match (hash >> 32) % 5 {
            0 => Fault::Slow,
            1 => Fault::Unavailable,
            2 => Fault::Short,
            3 => Fault::Broken,
            _ if may_be_wrong => Fault::Wrong,
            _ => Fault::Unavailable,
        })
    }
}

fn unavailable() -> Error {
    Error::Generic { store: "Faulty", source: "503 Slow Down".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let nth = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if self.faults.stuck_every > 0 && nth.is_multiple_of(self.faults.stuck_every) {
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        // Only rows have checksums of their own: elsewhere wrong bytes would be believed.
        let is_shard = location.as_ref().contains("train/") || location.as_ref().contains("eval/");
        let fault = self.fault(&format!("{location} {:?} {}", options.range, options.head), is_shard);
        if let Some(Fault::Unavailable) = fault {
            return Err(unavailable());
        }
        if let Some(Fault::Slow) = fault {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        let got = self.inner.get_opts(location, options).await?;
        let (meta, range, attributes, extensions) =
            (got.meta.clone(), got.range.clone(), got.attributes.clone(), got.extensions.clone());
        let mut bytes = got.bytes().await?.to_vec();
        let half = bytes.len() / 2;
        let mut pieces: Vec<Result<Bytes>> = Vec::new();
        match fault {
            Some(Fault::Short) => bytes.truncate(half),
            Some(Fault::Broken) => {
                bytes.truncate(half);
                pieces.push(Err(unavailable()));
            }
            Some(Fault::Wrong) if !bytes.is_empty() => bytes[half] ^= 1,
            _ => {}
        }
        pieces.insert(0, Ok(bytes.into()));
        let payload = GetResultPayload::Stream(stream::iter(pieces).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fault(&format!("list {prefix:?}"), false) {
            Some(Fault::Unavailable | Fault::Broken) => stream::iter([Err(unavailable())]).boxed(),
            _ => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}
