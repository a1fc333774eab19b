//! Object of a store: its bytes as a stream, by range, and through windows.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mpt_tokenize::ErrorKind;
use object_store::path::Path as Key;

use super::store::{ObjectIdentity, PendingRange, Store, fetch_error, missing, object_error};
use crate::durable::write_shared;
use crate::error::{Damage, Error, Result};
use crate::hash;

/// Most windows in memory: columns of a Parquet file are read side by side.
const MAX_WINDOWS: usize = 8;
/// Bytes in a window.
const WINDOW_BYTES: u64 = 2 << 20;

/// Object, as it was when it was opened: a later version is refused.
#[derive(Debug, Clone)]
pub(crate) struct RemoteObject(Arc<ObjectInner>);

#[derive(Debug)]
struct ObjectInner {
    path: PathBuf,
    store: Arc<Store>,
    key: Key,
    identity: ObjectIdentity,
    windows: Mutex<VecDeque<(u64, Bytes)>>,
}

impl RemoteObject {
    /// Opens an object.
    ///
    /// # Errors
    /// [`Error::Remote`] for a missing object, and for another version than the plan's.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::find(path)?.ok_or_else(|| missing(path))
    }

    /// Opens an object; `None` where there is none.
    pub(super) fn find(path: &Path) -> Result<Option<Self>> {
        let (store, key) = Store::for_path(path)?;
        let identity = store.head_if_exists(path, &key)?;
        let windows = Mutex::default();
        Ok(identity.map(|identity| {
            Self(Arc::new(ObjectInner { path: path.to_owned(), store, key, identity, windows }))
        }))
    }

    /// Length in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.identity.bytes
    }

    /// Content from an offset on. The next range is fetched while one is read.
    pub(crate) fn read_from(&self, from: u64) -> RemoteObjectReader {
        RemoteObjectReader { object: self.clone(), next: from, ahead: None, piece: Vec::new(), at: 0 }
    }

    /// Bytes of a range.
    pub(crate) fn range(&self, from: u64, bytes: usize) -> Result<Vec<u8>> {
        let ObjectInner { path, store, key, identity, .. } = &*self.0;
        let end = from.saturating_add(bytes as u64);
        if end > identity.bytes {
            let problem = format!("bytes {from}..{end} lie beyond its end at {}", identity.bytes);
            return Err(object_error(path, problem));
        }
        let fetched = store
            .fetch(key, identity, std::slice::from_ref(&(from..end)))?
            .map_err(|failure| fetch_error(path, failure))?;
        Ok(fetched.into_iter().flatten().collect())
    }

    /// Bytes of a range, from a window that holds the bytes after it as well.
    pub(crate) fn window(&self, from: u64, bytes: usize) -> Result<Bytes> {
        let inside = |&(start, ref window): &(u64, Bytes)| {
            let skip = usize::try_from(from.checked_sub(start)?).ok()?;
            let end = skip.checked_add(bytes).filter(|end| *end <= window.len())?;
            Some(window.slice(skip..end))
        };
        let windows = || self.0.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = windows().iter().find_map(inside) {
            return Ok(found);
        }
        let rest = self.bytes().saturating_sub(from);
        let wanted = (bytes as u64).max(WINDOW_BYTES.min(rest)) as usize;
        let fetched = Bytes::from(self.range(from, wanted)?);
        let mut windows = windows();
        if windows.len() == MAX_WINDOWS {
            windows.pop_front();
        }
        windows.push_back((from, fetched.clone()));
        Ok(fetched.slice(..bytes))
    }
}

/// Content of an object from an offset on.
#[derive(Debug)]
pub(crate) struct RemoteObjectReader {
    object: RemoteObject,
    next: u64,
    ahead: Option<PendingRange>,
    piece: Vec<u8>,
    at: usize,
}

impl RemoteObjectReader {
    fn start_next(&mut self) -> Result<Option<PendingRange>> {
        let ObjectInner { store, key, identity, .. } = &*self.object.0;
        let end = (self.next + store.options.piece_bytes.max(1)).min(identity.bytes);
        if self.next >= end {
            return Ok(None);
        }
        let piece = store.spawn_fetch(key, identity, self.next..end)?;
        self.next = end;
        Ok(Some(piece))
    }

    /// Moves to the next range, and starts to fetch the one after it.
    fn advance(&mut self) -> Result<()> {
        let current = match self.ahead.take() {
            Some(piece) => Some(piece),
            None => self.start_next()?,
        };
        self.ahead = self.start_next()?;
        (self.piece, self.at) = (Vec::new(), 0);
        if let Some(piece) = current {
            self.piece = piece.wait()?.map_err(|failure| fetch_error(&self.object.0.path, failure))?;
        }
        Ok(())
    }
}

impl Read for RemoteObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            self.advance().map_err(to_io_error)?;
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// I/O error of a reader, without the path, which the caller names.
fn to_io_error(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::Data => io::ErrorKind::InvalidData,
        ErrorKind::Usage | ErrorKind::System | ErrorKind::Interrupted | ErrorKind::Bug => {
            io::ErrorKind::Other
        }
    };
    match error {
        Error::Remote { problem, .. } | Error::Object { problem, .. } => io::Error::new(kind, problem),
        error => io::Error::new(kind, error),
    }
}

/// Local copy of a small file of prepared data, verified at each call.
///
/// # Errors
/// [`Error::Remote`]; [`Error::Io`]; [`Error::Shard`] when the object does not hold what the manifest says.
pub(crate) fn local_copy(dir: &Path, name: &str, sha256: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    let (store, _) = Store::for_path(&path)?;
    let folder = match &store.options.cache {
        Some(cache) => cache.dir.join("files"),
        None => std::env::temp_dir().join("mpt-remote-files"),
    };
    let copy = folder.join(sha256).join(name);
    if fs::read(&copy).is_ok_and(|bytes| hash::sha256(&bytes) == sha256) {
        return Ok(copy);
    }
    let object = RemoteObject::open(&path)?;
    let bytes = object.range(0, object.bytes() as usize)?;
    if hash::sha256(&bytes) != sha256 {
        let problem = "is not as it was written; restore it, or build again".to_owned();
        return Err(Error::Shard(Damage { path: name.into(), row: None, problem }));
    }
    write_shared(&copy, &bytes)?;
    Ok(copy)
}
