//! How stores are read: what one request fetches, how long it is tried, what is kept on disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::Address;
use crate::error::{Error, Result};
use crate::layout::PAGE_ROWS;

/// What is kept on disk unless `MPT_REMOTE_CACHE_LIMIT` says otherwise.
const DEFAULT_LIMIT: u64 = 16 << 30;
/// Rows that are fetched together unless `MPT_REMOTE_READ` says otherwise: as little as costs no more than a single one.
const DEFAULT_ROWS: u64 = 16;

/// How a store is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteOptions {
    /// What is fetched where a row is wanted.
    pub mode: ReadMode,
    /// Where pages are kept; `None`: in memory alone.
    pub cache: Option<CacheOptions>,
    /// Bytes of pages kept in memory.
    pub memory_bytes: u64,
    /// How often a range is asked for before that is an error, and how often a page that came wrong is fetched.
    pub attempts: u32,
    /// The wait after the first failure; it doubles, with jitter, up to 10 s.
    pub initial_backoff: Duration,
    /// How long nothing may come before that is a failure.
    pub timeout: Duration,
    /// Whether a request that is slower than nearly all before it gets a second one beside it.
    pub hedge: bool,
    /// Threads that fetch what will be needed soon.
    pub prefetch_threads: usize,
    /// The most bytes that one request of a stream asks for; two such pieces are in memory.
    pub piece_bytes: u64,
}

/// What is fetched where a row is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// So many rows, the wanted one among them, in two requests.
    Rows(u64),
    /// The row group, in one request: for an order that stays in one place for long, or a cache that holds all.
    Chunks,
}

/// A folder of pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// The folder; it holds nothing else.
    pub dir: PathBuf,
    /// The most bytes that pages in it may have.
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
    /// The defaults with what the environment says: `MPT_REMOTE_READ`, `MPT_REMOTE_CACHE`, `MPT_REMOTE_CACHE_LIMIT`.
    ///
    /// # Errors
    /// [`Error::Remote`] names the variable, what it holds and what was expected.
    pub fn from_environment() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let wrong = |name: &str, value: &str, expected: &str| Error::Remote {
            url: name.to_owned(),
            problem: format!("is {value:?}, expected {expected}"),
        };
        let mut options = Self::default();
        if let Some(value) = get("MPT_REMOTE_READ") {
            let expected = "`rows`, `rows:N` with N from 1 to 256, or `chunks`";
            options.mode = mode(&value).ok_or_else(|| wrong("MPT_REMOTE_READ", &value, expected))?;
        }
        let limit = match get("MPT_REMOTE_CACHE_LIMIT") {
            Some(value) => size(&value).ok_or_else(|| {
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

fn mode(text: &str) -> Option<ReadMode> {
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
fn size(text: &str) -> Option<u64> {
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

/// An address of a path, taken apart.
pub(super) fn address(path: &Path) -> Result<Address<'_>> {
    let text = path.to_str().unwrap_or_default();
    Address::parse(text).map_err(|problem| Error::Remote { url: path.display().to_string(), problem })
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
