//! Rows of a shard in a store, from pages.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::path::Path as Key;

use super::fetch::FetchError;
use super::page::{PageKey, PageSpan, row_ranges};
use super::store::{ObjectIdentity, Store, remote_error};
use crate::error::{Damage, Error, Result};
use crate::layout::{RowBuffers, RowBytes, RowGroup, RowLayout, ShardRecord, length_problem, sound_row};

/// How often a row that comes wrong from the cache is fetched again.
const MAX_REFETCHES: u32 = 3;

/// A shard in a store. Nothing is asked before a row is wanted.
#[derive(Debug, Clone)]
pub(crate) struct RemoteShard(Arc<ShardInner>);

#[derive(Debug)]
struct ShardInner {
    store: Arc<Store>,
    path: PathBuf,
    relative: PathBuf,
    key: Key,
    sha256: Arc<str>,
    bytes: u64,
    layout: RowLayout,
    documents: Option<[u64; 2]>,
    groups: Vec<RowGroup>,
}

impl RemoteShard {
    /// The shard that `record` describes, at an address.
    pub(crate) fn open(path: &Path, record: &ShardRecord, layout: RowLayout) -> Result<Self> {
        let (store, key) = Store::of(path)?;
        Ok(Self(Arc::new(ShardInner {
            store,
            path: path.to_owned(),
            relative: PathBuf::from(&record.path),
            key,
            sha256: record.sha256.as_str().into(),
            bytes: record.bytes,
            layout,
            documents: record.documents,
            groups: record.groups.clone(),
        })))
    }

    /// Reads rows `first..first + count` in order, and gives each sound one to `each`; one that came wrong from the cache is
    /// fetched again.
    pub(crate) fn rows(
        &self,
        first: u64,
        count: u64,
        scratch: &mut RowBuffers,
        mut each: impl FnMut(RowBytes<'_>),
    ) -> Result<()> {
        let (mut row, mut refetches) = (first, 0);
        while row < first + count {
            let run = self.run(row, first + count - row, scratch)?;
            let layout = self.0.layout;
            let (tokens, meta) = scratch.columns();
            let cells =
                tokens.chunks_exact(layout.tokens_width()).zip(meta.chunks_exact(layout.meta_width()));
            let (begun, next) = (row, row + run);
            for (tokens, meta) in cells {
                let Some(bytes) = self.0.sound(tokens, meta) else { break };
                each(bytes);
                row += 1;
            }
            if row == next {
                continue;
            }
            refetches = if row > begun { 1 } else { refetches + 1 };
            if refetches > MAX_REFETCHES {
                return Err(self
                    .0
                    .damaged(row, "comes wrong from the cache again and again; check its disk".into()));
            }
            let span = self.0.span(row)?;
            self.0.store.pages.forget(&self.0.page_key(&span))?;
        }
        Ok(())
    }

    /// Reads as many of `want` rows from `row` on as lie in one page; returns how many.
    fn run(&self, row: u64, want: u64, scratch: &mut RowBuffers) -> Result<u64> {
        let shard = &*self.0;
        let span = shard.span(row)?;
        let key = shard.page_key(&span);
        let run = want.min(span.first() + span.rows - row);
        let [tokens, meta] = row_ranges(span.rows, row - span.first(), run, shard.layout);
        let (tokens_out, meta_out) = scratch.columns();
        tokens_out.resize(tokens.len(), 0);
        meta_out.resize(meta.len(), 0);
        let pages = &shard.store.pages;
        pages.used(&key);
        let held = pages.in_memory(&key);
        if let (None, Some(cache)) = (&held, &pages.cache) {
            let parts =
                &mut [(tokens.start as u64, &mut tokens_out[..]), (meta.start as u64, &mut meta_out[..])];
            if cache.read(&key, parts) {
                return Ok(run);
            }
        }
        let page = match held {
            Some(page) => page,
            None => shard.page(&span, &key, row..row + run)?,
        };
        tokens_out.copy_from_slice(&page[tokens]);
        meta_out.copy_from_slice(&page[meta]);
        Ok(run)
    }

    /// Says that rows will be needed, after all that were said before; they are fetched ahead.
    pub(crate) fn expect(&self, first: u64, count: u64) {
        let pages = &self.0.store.pages;
        for row in first..first + count {
            let Ok(span) = self.0.span(row) else { continue };
            let key = self.0.page_key(&span);
            pages.announce(&key);
            if pages.has(&key) || !pages.has_room(span.bytes(self.0.layout)) {
                continue;
            }
            let shard = self.0.clone();
            // What fails here fails again where the row is needed, and is told there.
            pages.ahead(Box::new(move || {
                let pages = &shard.store.pages;
                if !pages.has(&key) {
                    let _ = shard.span(row).and_then(|span| shard.page(&span, &key, row..row));
                }
            }));
        }
    }
}

impl ShardInner {
    fn span(&self, row: u64) -> Result<PageSpan<'_>> {
        let span = PageSpan::of(&self.groups, row, self.store.options.mode);
        span.ok_or_else(|| self.damaged(row, "is not in the file".to_owned()))
    }

    fn page_key(&self, span: &PageSpan<'_>) -> PageKey {
        PageKey { sha256: self.sha256.clone(), first: span.first(), rows: span.rows }
    }

    /// Fetches a page, unless another thread did meanwhile. Only the rows `wanted` must be sound; only a page all of whose rows
    /// are is kept.
    fn page(&self, span: &PageSpan<'_>, key: &PageKey, wanted: std::ops::Range<u64>) -> Result<Arc<Vec<u8>>> {
        let pages = &self.store.pages;
        let _flight = pages.take_off(key);
        if let Some(page) = pages.in_memory(key) {
            return Ok(page);
        }
        let attempts = self.store.options.attempts.max(1);
        for attempt in 1.. {
            let page = Arc::new(self.fetch(span)?);
            let bad = self.unsound(span, &page);
            let Some(first) = bad.first() else {
                // A full disk must not end training: the page is there.
                let _ = pages.keep(key, &page);
                return Ok(page);
            };
            if attempt < attempts {
                self.store.pause(attempt);
                continue;
            }
            return match bad.iter().find(|row| wanted.contains(row)) {
                None if !wanted.is_empty() => Ok(page),
                bad => {
                    let problem = format!(
                        "does not match its checksum or is another shard's, fetched {attempts} times; restore the object, or build again"
                    );
                    Err(self.damaged(*bad.unwrap_or(first), problem))
                }
            };
        }
        unreachable!("the last attempt returns")
    }

    fn fetch(&self, span: &PageSpan<'_>) -> Result<Vec<u8>> {
        let first = span.first();
        let ranges = span.requests(self.layout);
        if ranges.iter().any(|range| range.end > self.bytes) {
            return Err(self.damaged(first, "lies beyond the end of the file".to_owned()));
        }
        // The hash in the manifest says what the object must hold, so no version is asked for.
        let identity = ObjectIdentity { bytes: self.bytes, tag: String::new() };
        let answers = self.store.fetch(&self.key, &identity, &ranges)?.map_err(|failure| match failure {
            FetchError::Missing => self.whole("is missing; restore it, or build again".to_owned()),
            FetchError::Length(found) => self.whole(length_problem(found, self.bytes)),
            FetchError::Changed(problem) | FetchError::Other(problem) => remote_error(&self.path, problem),
        })?;
        let answers: Vec<_> = ranges.into_iter().zip(answers).collect();
        let page = span.assemble(self.layout, &answers);
        page.ok_or_else(|| self.damaged(first, "lies outside of its row group".to_owned()))
    }

    /// The rows of a page that do not match their checksums.
    fn unsound(&self, span: &PageSpan<'_>, page: &[u8]) -> Vec<u64> {
        let is_bad = |inside: &u64| {
            let [tokens, meta] = row_ranges(span.rows, *inside, 1, self.layout);
            self.sound(&page[tokens], &page[meta]).is_none()
        };
        (0..span.rows).filter(is_bad).map(|inside| span.first() + inside).collect()
    }

    /// A row that matches its checksum, and is of this shard: objects that were swapped are as sound as each other.
    fn sound<'a>(&self, tokens: &'a [u8], meta: &'a [u8]) -> Option<RowBytes<'a>> {
        let is_ours = |row: &RowBytes<'_>| {
            self.documents.is_none_or(|[first, last]| (first..=last).contains(&row.document()))
        };
        sound_row(tokens, meta).filter(is_ours)
    }

    fn damaged(&self, row: u64, problem: String) -> Error {
        Error::Shard(Damage { path: self.relative.clone(), row: Some(row), problem })
    }

    fn whole(&self, problem: String) -> Error {
        Error::Shard(Damage { path: self.relative.clone(), row: None, problem })
    }
}
