//! Settings for reads of a store: rows in a request, attempts and timeouts, cache.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::Address;
use crate::error::{Error, Result};
use crate::layout::PAGE_ROWS;

/// Bytes of the disk cache, unless `MPT_REMOTE_CACHE_LIMIT` is set.
const DEFAULT_LIMIT: u64 = 16 << 30;
/// Rows in a page, unless `MPT_REMOTE_READ` is set: as many as cost no more than a single one.
const DEFAULT_ROWS: u64 = 16;

/// Settings for reads of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteOptions {
    /// Rows in a page.
    pub mode: ReadMode,
    /// Disk cache; `None` for pages in memory alone.
    pub cache: Option<CacheOptions>,
    /// Bytes of pages in memory.
    pub memory_bytes: u64,
    /// Attempts for a range without progress, and fetches of a page that fails its checksums.
    pub attempts: u32,
    /// Wait after the first failure; it doubles, with jitter, up to 10 s.
    pub initial_backoff: Duration,
    /// Longest time without a byte.
    pub timeout: Duration,
    /// Whether a request slower than 99 % of the recent ones gets a second one beside it.
    pub hedge: bool,
    /// Threads that prefetch pages.
    pub prefetch_threads: usize,
    /// Most bytes in one request of a stream, of which two are in memory.
    pub piece_bytes: u64,
}

/// Unit of reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// Pages of this many rows, in two requests.
    Rows(u64),
    /// Whole row groups, in one request: for an order with locality, or a cache that holds all the data.
    Chunks,
}

/// Disk cache of pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// Folder, for the cache alone.
    pub dir: PathBuf,
    /// Most bytes of pages.
    pub limit: u64,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            mode: ReadMode::Rows(DEFAULT_ROWS),
            cache: None,
            memory_bytes: 64 << 20,
            attempts: 6,
            initial_backoff: Duration::from_millis(200),
            timeout: Duration::from_secs(30),
            hedge: true,
            prefetch_threads: 8,
            piece_bytes: 8 << 20,
        }
    }
}

impl RemoteOptions {
    /// Defaults, overridden by `MPT_REMOTE_READ`, `MPT_REMOTE_CACHE` and `MPT_REMOTE_CACHE_LIMIT`.
    ///
    /// # Errors
    /// [`Error::Address`] names the variable, its value and the expectation.
    pub fn from_environment() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let wrong = |name: &str, value: &str, expected: &str| Error::Address {
            url: name.to_owned(),
            problem: format!("is {value:?}, expected {expected}"),
            source: None,
        };
        let mut options = Self::default();
        if let Some(value) = get("MPT_REMOTE_READ") {
            let expected = "`rows`, `rows:N` with N from 1 to 256, or `chunks`";
            options.mode =
                parse_read_mode(&value).ok_or_else(|| wrong("MPT_REMOTE_READ", &value, expected))?;
        }
        let limit = match get("MPT_REMOTE_CACHE_LIMIT") {
            Some(value) => parse_size(&value).ok_or_else(|| {
                wrong("MPT_REMOTE_CACHE_LIMIT", &value, "bytes such as 500MiB or 64GiB, or 0 for no cache")
            })?,
            None => DEFAULT_LIMIT,
        };
        options.cache = cache_dir(&get).filter(|_| limit > 0).map(|dir| CacheOptions { dir, limit });
        Ok(options)
    }
}

fn cache_dir(get: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let own = get("MPT_REMOTE_CACHE").map(PathBuf::from);
    let shared = || get("XDG_CACHE_HOME").map(|dir| Path::new(&dir).join("mpt/remote"));
    let home = || get("HOME").map(|dir| Path::new(&dir).join(".cache/mpt/remote"));
    own.or_else(shared).or_else(home)
}

fn parse_read_mode(text: &str) -> Option<ReadMode> {
    match text {
        "chunks" => Some(ReadMode::Chunks),
        "rows" => Some(ReadMode::Rows(DEFAULT_ROWS)),
        _ => {
            let rows = text.strip_prefix("rows:")?.parse().ok()?;
            (1..=PAGE_ROWS).contains(&rows).then_some(ReadMode::Rows(rows))
        }
    }
}

/// A size such as `500MiB`.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Parsed address of a path.
pub(super) fn address(path: &Path) -> Result<Address<'_>> {
    let text = path.to_str().unwrap_or_default();
    let wrong = |problem| Error::Address { url: path.display().to_string(), problem, source: None };
    Address::parse(text).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<RemoteOptions> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        RemoteOptions::from_variables(find)
    }

    #[test]
    fn the_environment_is_read_or_refused_by_name() {
        let options =
            read(&[("MPT_REMOTE_READ", "rows:4"), ("MPT_REMOTE_CACHE_LIMIT", "2GiB"), ("HOME", "/h")]);
        let options = options.expect("sound");
        assert_eq!(options.mode, ReadMode::Rows(4));
        let dir = PathBuf::from("/h/.cache/mpt/remote");
        assert_eq!(options.cache, Some(CacheOptions { dir, limit: 2 << 30 }));
        assert_eq!(read(&[("MPT_REMOTE_CACHE_LIMIT", "0"), ("HOME", "/h")]).expect("sound").cache, None);
        let error = read(&[("MPT_REMOTE_READ", "rows:0")]).expect_err("no rows").to_string();
        assert_eq!(
            error,
            "MPT_REMOTE_READ: is \"rows:0\", expected `rows`, `rows:N` with N from 1 to 256, or `chunks`"
        );
        assert!(read(&[("MPT_REMOTE_CACHE_LIMIT", "2 GB")]).is_err());
    }
}
