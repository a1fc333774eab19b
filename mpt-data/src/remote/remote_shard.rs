//! Shard in a store, read through pages.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::path::Path as Key;

use super::fetch::FetchError;
use super::page::{PageKey, PageSpan, row_ranges};
use super::store::{ObjectIdentity, Store, fetch_error, object_error};
use crate::error::{Damage, Error, Result};
use crate::layout::{RowBuffers, RowBytes, RowGroup, RowLayout, ShardRecord, length_problem, verified_row};

/// Most refetches of a row that comes damaged from the cache.
const MAX_REFETCHES: u32 = 3;

/// Shard in a store. No request is sent before the first read.
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
    /// Shard of `record` at an address.
    pub(crate) fn open(path: &Path, record: &ShardRecord, layout: RowLayout) -> Result<Self> {
        let (store, key) = Store::for_path(path)?;
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

    /// Calls `on_row` with rows `first..first + count`, verified and in order. A row that is damaged in the cache is fetched
    /// again.
    pub(crate) fn rows(
        &self,
        first: u64,
        count: u64,
        scratch: &mut RowBuffers,
        mut on_row: impl FnMut(RowBytes<'_>),
    ) -> Result<()> {
        let (mut row, mut refetches) = (first, 0);
        while row < first + count {
            let run = self.read_run(row, first + count - row, scratch)?;
            let layout = self.0.layout;
            let (tokens, meta) = scratch.columns();
            let cells =
                tokens.chunks_exact(layout.tokens_width()).zip(meta.chunks_exact(layout.meta_width()));
            let (begun, next) = (row, row + run);
            for (tokens, meta) in cells {
                let Some(bytes) = self.0.verified(tokens, meta) else { break };
                on_row(bytes);
                row += 1;
            }
            if row == next {
                continue;
            }
            refetches = if row > begun { 1 } else { refetches + 1 };
            if refetches > MAX_REFETCHES {
                return Err(self
                    .0
                    .damaged_row(row, "comes wrong from the cache again and again; check its disk".into()));
            }
            let span = self.0.span(row)?;
            self.0.store.pages.remove(&self.0.page_key(&span))?;
        }
        Ok(())
    }

    /// Reads up to `want` rows of one page from `row` on, and returns how many.
    fn read_run(&self, row: u64, want: u64, scratch: &mut RowBuffers) -> Result<u64> {
        let shard = &*self.0;
        let span = shard.span(row)?;
        let key = shard.page_key(&span);
        let run = want.min(span.first() + span.rows - row);
        let [tokens, meta] = row_ranges(span.rows, row - span.first(), run, shard.layout);
        let (tokens_out, meta_out) = scratch.columns();
        tokens_out.resize(tokens.len(), 0);
        meta_out.resize(meta.len(), 0);
        let pages = &shard.store.pages;
        pages.consume_use(&key);
        let cached = pages.in_memory(&key);
        if let (None, Some(cache)) = (&cached, &pages.cache) {
            let parts =
                &mut [(tokens.start as u64, &mut tokens_out[..]), (meta.start as u64, &mut meta_out[..])];
            if cache.read(&key, parts) {
                return Ok(run);
            }
        }
        let page = match cached {
            Some(page) => page,
            None => shard.load_page(&span, &key, row..row + run)?,
        };
        tokens_out.copy_from_slice(&page[tokens]);
        meta_out.copy_from_slice(&page[meta]);
        Ok(run)
    }

    /// Announces reads of rows, after all announced before, and prefetches their pages.
    pub(crate) fn prefetch(&self, first: u64, count: u64) {
        let pages = &self.0.store.pages;
        for row in first..first + count {
            let Ok(span) = self.0.span(row) else { continue };
            let key = self.0.page_key(&span);
            pages.expect_use(&key);
            if pages.contains(&key) || !pages.has_room(span.bytes(self.0.layout)) {
                continue;
            }
            let shard = self.0.clone();
            // A failure is reported by the read of the row.
            pages.prefetch(Box::new(move || {
                let pages = &shard.store.pages;
                if !pages.contains(&key) {
                    let _ = shard.span(row).and_then(|span| shard.load_page(&span, &key, row..row));
                }
            }));
        }
    }
}

impl ShardInner {
    fn span(&self, row: u64) -> Result<PageSpan<'_>> {
        let span = PageSpan::of(&self.groups, row, self.store.options.mode);
        span.ok_or_else(|| self.damaged_row(row, "is not in the file".to_owned()))
    }

    fn page_key(&self, span: &PageSpan<'_>) -> PageKey {
        PageKey { sha256: self.sha256.clone(), first: span.first(), rows: span.rows }
    }

    /// Fetches a page, unless another thread did meanwhile. Only the rows `wanted` must be undamaged; only an undamaged page is
    /// cached.
    fn load_page(
        &self,
        span: &PageSpan<'_>,
        key: &PageKey,
        wanted: std::ops::Range<u64>,
    ) -> Result<Arc<Vec<u8>>> {
        let pages = &self.store.pages;
        let _claim = pages.claim_fetch(key);
        if let Some(page) = pages.in_memory(key) {
            return Ok(page);
        }
        let attempts = self.store.options.attempts.max(1);
        for attempt in 1.. {
            let page = Arc::new(self.fetch(span)?);
            let bad = self.damaged_rows(span, &page);
            let Some(first) = bad.first() else {
                // A full disk must not end training: the page is in memory.
                let _ = pages.insert(key, &page);
                return Ok(page);
            };
            if attempt < attempts {
                self.store.sleep_backoff(attempt);
                continue;
            }
            return match bad.iter().find(|row| wanted.contains(row)) {
                None if !wanted.is_empty() => Ok(page),
                bad => {
                    let problem = format!(
                        "does not match its checksum or is another shard's, fetched {attempts} times; restore the object, or build again"
                    );
                    Err(self.damaged_row(*bad.unwrap_or(first), problem))
                }
            };
        }
        unreachable!("the last attempt returns")
    }

    fn fetch(&self, span: &PageSpan<'_>) -> Result<Vec<u8>> {
        let first = span.first();
        let ranges = span.requests(self.layout);
        if ranges.iter().any(|range| range.end > self.bytes) {
            return Err(self.damaged_row(first, "lies beyond the end of the file".to_owned()));
        }
        // The hash in the manifest identifies the content, so no version is requested.
        let identity = ObjectIdentity { bytes: self.bytes, tag: String::new() };
        let answers = self.store.fetch(&self.key, &identity, &ranges)?.map_err(|failure| match failure {
            FetchError::Missing => self.damaged_file("is missing; restore it, or build again".to_owned()),
            FetchError::Length(found) => self.damaged_file(length_problem(found, self.bytes)),
            FetchError::Changed(problem) => object_error(&self.path, problem),
            failure => fetch_error(&self.path, failure),
        })?;
        let answers: Vec<_> = ranges.into_iter().zip(answers).collect();
        let page = span.assemble(self.layout, &answers);
        page.ok_or_else(|| self.damaged_row(first, "lies outside of its row group".to_owned()))
    }

    /// Rows of a page that do not match their checksums.
    fn damaged_rows(&self, span: &PageSpan<'_>, page: &[u8]) -> Vec<u64> {
        let is_bad = |inside: &u64| {
            let [tokens, meta] = row_ranges(span.rows, *inside, 1, self.layout);
            self.verified(&page[tokens], &page[meta]).is_none()
        };
        (0..span.rows).filter(is_bad).map(|inside| span.first() + inside).collect()
    }

    /// Row that matches its checksum and is of this shard: swapped objects have valid checksums too.
    fn verified<'a>(&self, tokens: &'a [u8], meta: &'a [u8]) -> Option<RowBytes<'a>> {
        let is_ours = |row: &RowBytes<'_>| {
            self.documents.is_none_or(|[first, last]| (first..=last).contains(&row.document()))
        };
        verified_row(tokens, meta).filter(is_ours)
    }

    fn damaged_row(&self, row: u64, problem: String) -> Error {
        Error::Shard(Damage { path: self.relative.clone(), row: Some(row), problem })
    }

    fn damaged_file(&self, problem: String) -> Error {
        Error::Shard(Damage { path: self.relative.clone(), row: None, problem })
    }
}
