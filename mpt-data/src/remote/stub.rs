//! Stub of this module without the feature `remote`: every address is refused by name.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::{Damage, Error, Result};
use crate::layout::{RowBuffers, RowBytes, RowLayout, ShardRecord};

fn refused<T>(path: &Path) -> Result<T> {
    Err(Error::NotBuilt {
        what: path.display().to_string(),
        feature: "remote",
        instead: "build it with that, or copy the files to this machine",
    })
}

/// Object of a store; never constructed.
#[derive(Debug, Clone)]
pub(crate) struct RemoteObject(Infallible);

/// Content of an object as a stream; never constructed.
#[derive(Debug)]
pub(crate) struct RemoteObjectReader(Infallible);

/// Shard in a store; never constructed.
#[derive(Debug)]
pub(crate) struct RemoteShard(Infallible);

impl RemoteObject {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        refused(path)
    }

    pub(crate) fn bytes(&self) -> u64 {
        match self.0 {}
    }

    pub(crate) fn read_from(&self, _from: u64) -> RemoteObjectReader {
        match self.0 {}
    }

    pub(crate) fn window(&self, _from: u64, _bytes: usize) -> Result<Bytes> {
        match self.0 {}
    }
}

impl io::Read for RemoteObjectReader {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

impl RemoteShard {
    pub(crate) fn open(path: &Path, _record: &ShardRecord, _layout: RowLayout) -> Result<Self> {
        refused(path)
    }

    pub(crate) fn rows(
        &self,
        _first: u64,
        _count: u64,
        _scratch: &mut RowBuffers,
        _on_row: impl FnMut(RowBytes<'_>),
    ) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn prefetch(&self, _first: u64, _count: u64) {
        match self.0 {}
    }
}

pub(crate) fn list_objects(_source_name: &str, pattern: &str) -> Result<Vec<(PathBuf, String)>> {
    refused(Path::new(pattern))
}

pub(crate) fn planned_identity(path: &Path, _read: impl FnMut(u64) -> Result<()>) -> Result<(String, u64)> {
    refused(path)
}

pub(crate) fn local_copy(dir: &Path, _name: &str, _sha256: &str) -> Result<PathBuf> {
    refused(dir)
}

pub(crate) fn shard_damage(
    path: &Path,
    _record: &ShardRecord,
    _layout: RowLayout,
    _read: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<Damage>> {
    refused(path)
}
