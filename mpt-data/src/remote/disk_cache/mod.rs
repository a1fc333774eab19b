//! Disk cache: pages in a folder of their own, never more than its limit.
//!
//! A page is the file `HASH/FIRST-ROWS.page` in the folder. Every change is made under one lock, which the system releases when
//! its process ends. So there is at most one staging file, and the next write replaces what a killed process left of it. Room
//! is made before anything is written. Readers take no lock: a page appears complete by its renaming, and readers verify rows,
//! because the disk may damage a page.
//!
//! The locked file is also a journal, through which each process learns of the others' changes. A page enters it before the
//! file exists, and leaves it after the file is removed. A process killed in between leaves a sum that is too large, never one
//! that is too small.

mod index;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use self::index::CacheIndex;
pub(super) use self::index::NextUse;
use super::options::CacheOptions;
use super::page::PageKey;
use crate::error::{Error, Result};

/// Name of the file that marks the folder as a cache, and that is its lock and its journal.
const JOURNAL_FILE: &str = "mpt-page-cache";
/// Name of a page that is being written.
const STAGING_FILE: &str = "page.tmp";
/// Longest journal. A longer one is restarted, and the other processes rescan the folder.
const MAX_JOURNAL_BYTES: u64 = 4 << 20;
/// Bytes of a journal's first line, its epoch, which changes with each restart.
const EPOCH_BYTES: usize = 17;

/// Cache of pages in a folder, which processes of one machine may share.
#[derive(Debug)]
pub(super) struct DiskCache {
    pages: PathBuf,
    limit: u64,
    index: Mutex<CacheIndex>,
}

impl DiskCache {
    /// Opens or creates a cache, and removes the staging file of a killed process.
    ///
    /// # Errors
    /// [`Error::NotOurs`] for a folder with other files, [`Error::Io`].
    pub(super) fn open(options: &CacheOptions) -> Result<Self> {
        let pages = options.dir.join("pages");
        fs::create_dir_all(&pages).map_err(Error::io(&pages, "making the folder"))?;
        let cache = Self { pages, limit: options.limit, index: Mutex::default() };
        let mut journal = cache.lock()?;
        if journal.metadata().map_err(Error::io(&cache.pages, "looking at"))?.len() == 0
            && cache.has_foreign_files()?
        {
            drop(journal);
            let _ = fs::remove_file(cache.pages.join(JOURNAL_FILE));
            return Err(Error::NotOurs { path: cache.pages });
        }
        match fs::remove_file(cache.pages.join(STAGING_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(&cache.pages, "removing what was left in")(error));
            }
            _ => {}
        }
        // A smaller limit than before holds from now on.
        cache.make_room(&mut journal, 0, u64::MAX, &|_| None)?;
        drop(journal);
        Ok(cache)
    }

    /// Reads ranges of a page, each from its offset into its buffer; `false` for a page that is not cached.
    pub(super) fn read(&self, key: &PageKey, ranges: &mut [(u64, &mut [u8])]) -> bool {
        let read_all = || -> io::Result<()> {
            let mut file = File::open(self.path(key))?;
            for (from, buffer) in ranges {
                file.seek(SeekFrom::Start(*from))?;
                file.read_exact(buffer)?;
            }
            Ok(())
        };
        let is_cached = read_all().is_ok();
        if is_cached {
            self.index().touch(key);
        }
        is_cached
    }

    /// Most bytes of pages.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether a page is cached.
    pub(super) fn contains(&self, key: &PageKey) -> bool {
        self.path(key).is_file()
    }

    /// Inserts a page, unless pages needed sooner would have to be evicted for it.
    pub(super) fn insert(&self, key: &PageKey, bytes: &[u8], next_use: NextUse<'_>) -> Result<()> {
        let size = bytes.len() as u64;
        if size > self.limit {
            return Ok(());
        }
        let mut journal = self.lock()?;
        self.replay_journal(&mut journal)?;
        let own = next_use(key).unwrap_or(u64::MAX);
        if self.contains(key) || !self.make_room(&mut journal, size, own, next_use)? {
            return Ok(());
        }
        self.log(&mut journal, '+', key, size)?;
        let (staging, path) = (self.pages.join(STAGING_FILE), self.path(key));
        let written = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(&self.pages))?;
            fs::write(&staging, bytes)?;
            fs::rename(&staging, &path)
        };
        written().map_err(Error::io(&path, "writing"))
    }

    /// Removes a damaged page.
    pub(super) fn remove(&self, key: &PageKey) -> Result<()> {
        let mut journal = self.lock()?;
        self.replay_journal(&mut journal)?;
        self.delete(&mut journal, key)
    }

    /// Evicts pages until `bytes` fit for a page that is needed at `own`; `false` where they cannot. Under the lock.
    fn make_room(&self, journal: &mut File, bytes: u64, own: u64, next_use: NextUse<'_>) -> Result<bool> {
        self.replay_journal(journal)?;
        let evictions = self.index().evictions(bytes, self.limit, own, next_use);
        let Some(evictions) = evictions else { return Ok(false) };
        evictions.iter().try_for_each(|key| self.delete(journal, key))?;
        Ok(true)
    }

    /// Applies the changes of other processes to the index. Under the lock.
    fn replay_journal(&self, journal: &mut File) -> Result<()> {
        let wrong = |action| Error::io(&self.pages, action);
        let mut epoch = vec![0; EPOCH_BYTES];
        journal.seek(SeekFrom::Start(0)).map_err(wrong("reading the journal of"))?;
        let has_epoch = journal.read_exact(&mut epoch).is_ok();
        let length = journal.metadata().map_err(wrong("looking at the journal of"))?.len();
        if !has_epoch || self.index().epoch != epoch || length > MAX_JOURNAL_BYTES {
            return self.rescan(journal, !has_epoch || length > MAX_JOURNAL_BYTES);
        }
        let from = self.index().journal;
        journal.seek(SeekFrom::Start(from)).map_err(wrong("reading the journal of"))?;
        let mut unread = String::new();
        if journal.read_to_string(&mut unread).is_err() {
            return self.rescan(journal, true);
        }
        let mut index = self.index();
        // Partial lines of killed processes are skipped.
        for line in unread.lines().filter_map(parse_journal_line) {
            match line {
                (true, key, bytes) => index.insert(key, bytes),
                (false, key, _) => index.remove(&key),
            }
        }
        index.journal = length;
        Ok(())
    }

    /// Rebuilds the index from the folder, and restarts the journal where `restart` says so. Under the lock.
    fn rescan(&self, journal: &mut File, restart: bool) -> Result<()> {
        let wrong = |action| Error::io(&self.pages, action);
        if restart {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let epoch = format!("{:016x}\n", now.as_nanos() as u64);
            let restarted = journal.set_len(0).and_then(|()| journal.write_all(epoch.as_bytes()));
            restarted.map_err(wrong("writing the journal of"))?;
        }
        let mut epoch = vec![0; EPOCH_BYTES];
        let read = journal.seek(SeekFrom::Start(0)).and_then(|_| journal.read_exact(&mut epoch));
        read.map_err(wrong("reading the journal of"))?;
        let length = journal.metadata().map_err(wrong("looking at the journal of"))?.len();
        let mut index = CacheIndex::default();
        (index.epoch, index.journal) = (epoch, length);
        self.list_pages()?.into_iter().for_each(|(key, bytes)| index.insert(key, bytes));
        *self.index() = index;
        Ok(())
    }

    /// Pages in the folder and their bytes, the earliest written first: uses are not recorded on disk.
    fn list_pages(&self) -> Result<Vec<(PageKey, u64)>> {
        let mut found = Vec::new();
        for folder in self.entries(&self.pages)? {
            let Some(hash) = name_of(&folder).filter(|name| is_hash(name)) else { continue };
            let hash: Arc<str> = hash.into();
            for path in self.entries(&folder)? {
                let Some((first, rows)) = name_of(&path).and_then(parse_page_name) else { continue };
                let Ok(data) = path.metadata() else { continue };
                let key = PageKey { sha256: hash.clone(), first, rows };
                found.push((data.modified().ok(), key, data.len()));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, key, bytes)| (key, bytes)).collect())
    }

    /// Records a change in the index and in the journal. Under the lock.
    fn log(&self, journal: &mut File, sign: char, key: &PageKey, bytes: u64) -> Result<()> {
        let line = format!("\n{sign} {} {} {} {bytes}\n", key.sha256, key.first, key.rows);
        journal.write_all(line.as_bytes()).map_err(Error::io(&self.pages, "writing the journal of"))?;
        let mut index = self.index();
        match sign {
            '+' => index.insert(key.clone(), bytes),
            _ => index.remove(key),
        }
        index.journal += line.len() as u64;
        Ok(())
    }

    /// Whether the folder holds files of other programs.
    fn has_foreign_files(&self) -> Result<bool> {
        Ok(self.entries(&self.pages)?.iter().any(|path| name_of(path) != Some(JOURNAL_FILE)))
    }

    fn entries(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(dir).map_err(Error::io(dir, "listing"))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()).map_err(Error::io(dir, "listing")));
        paths.filter(|path| path.as_ref().is_ok_and(|path| path.is_dir() || path.is_file())).collect()
    }

    fn delete(&self, journal: &mut File, key: &PageKey) -> Result<()> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&path, "removing")(error)),
            _ => self.log(journal, '-', key, 0),
        }
    }

    fn path(&self, key: &PageKey) -> PathBuf {
        self.pages.join(&*key.sha256).join(format!("{}-{}.page", key.first, key.rows))
    }

    /// Waits for the lock of the folder.
    fn lock(&self) -> Result<File> {
        let path = self.pages.join(JOURNAL_FILE);
        let failed = |action| Error::io(&path, action);
        let file =
            File::options().create(true).read(true).append(true).open(&path).map_err(failed("creating"))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => file.lock().map_err(failed("locking"))?,
            Err(TryLockError::Error(error)) => return Err(failed("locking")(error)),
        }
        Ok(file)
    }

    fn index(&self) -> std::sync::MutexGuard<'_, CacheIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn is_hash(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Journal line: whether the page was inserted, its key, and its bytes.
fn parse_journal_line(line: &str) -> Option<(bool, PageKey, u64)> {
    let mut words = line.split(' ');
    let inserted = match words.next()? {
        "+" => true,
        "-" => false,
        _ => return None,
    };
    let sha256 = words.next().filter(|name| is_hash(name))?.into();
    let (first, rows, bytes) =
        (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((inserted, PageKey { sha256, first, rows }, bytes))
}

/// First row and rows in the name of a page.
fn parse_page_name(name: &str) -> Option<(u64, u64)> {
    let (first, rows) = name.strip_suffix(".page")?.split_once('-')?;
    Some((first.parse().ok()?, rows.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(first: u64) -> PageKey {
        PageKey { sha256: "ab".repeat(32).into(), first, rows: 4 }
    }

    fn open(dir: &Path, limit: u64) -> DiskCache {
        DiskCache::open(&CacheOptions { dir: dir.to_owned(), limit }).expect("a cache")
    }

    fn firsts(cache: &DiskCache) -> Vec<u64> {
        let mut journal = cache.lock().expect("free");
        cache.replay_journal(&mut journal).expect("readable");
        let known = cache.index().pages.clone();
        cache.rescan(&mut journal, false).expect("listable");
        assert_eq!(known.len(), cache.index().pages.len(), "the journal says what is there");
        cache.index().pages.keys().map(|key| key.first).collect()
    }

    #[test]
    fn the_limit_holds_and_the_longest_unused_goes_first() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let cache = open(dir.path(), 200);
        for first in 0..3 {
            cache.insert(&key(first), &[first as u8; 90], &|_| None).expect("kept");
        }
        assert_eq!(firsts(&cache), [1, 2]);
        let mut byte = [0];
        assert!(cache.read(&key(1), &mut [(89, &mut byte)]) && byte == [1]);
        cache.insert(&key(3), &[3; 90], &|_| None).expect("kept");
        assert_eq!(firsts(&cache), [1, 3], "page 1 was used after page 2");
        cache.insert(&key(4), &[4; 201], &|_| None).expect("not kept");
        assert_eq!(firsts(&cache), [1, 3], "what is larger than all is not kept");
        assert_eq!(firsts(&open(dir.path(), 100)), [3], "another process with a smaller limit");
    }

    #[test]
    fn what_is_needed_last_goes_first() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let cache = open(dir.path(), 200);
        let next = |key: &PageKey| Some([10, 30, 20, 40][key.first as usize]);
        for first in 0..4 {
            cache.insert(&key(first), &[0; 90], &next).expect("fine");
        }
        assert_eq!(firsts(&cache), [0, 2], "page 3 is needed after all others, so it was not kept at all");
    }

    #[test]
    fn processes_that_share_a_folder_share_the_limit() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let both = [open(dir.path(), 300), open(dir.path(), 300)];
        for first in 0..12 {
            both[first as usize % 2].insert(&key(first), &[0; 90], &|_| None).expect("kept");
            let size = |path: PathBuf| path.metadata().expect("there").len();
            let folder = dir.path().join("pages").join(&*key(0).sha256);
            let total: u64 = both[0].entries(&folder).expect("listable").into_iter().map(size).sum();
            assert!(total <= 300, "{total}");
        }
        assert_eq!(firsts(&both[0]), [9, 10, 11]);
        assert_eq!(firsts(&both[1]), [9, 10, 11]);
    }

    #[test]
    fn files_of_others_stay() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let other = dir.path().join("pages/mine.txt");
        fs::create_dir_all(other.parent().expect("has one")).expect("made");
        fs::write(&other, "mine").expect("written");
        let options = CacheOptions { dir: dir.path().to_owned(), limit: 10 };
        let error = DiskCache::open(&options).expect_err("not a cache").to_string();
        assert!(error.contains("the folder is not empty"), "{error}");
        fs::remove_file(&other).expect("removed");
        let cache = open(dir.path(), 100);
        fs::write(&other, "mine").expect("written");
        fs::create_dir_all(dir.path().join("pages/notes")).expect("made");
        fs::write(dir.path().join("pages/notes/0-4.page"), [0; 500]).expect("written");
        for first in 0..4 {
            cache.insert(&key(first), &[0; 90], &|_| None).expect("kept");
        }
        assert!(other.exists() && dir.path().join("pages/notes/0-4.page").exists());
    }

    #[test]
    fn what_a_killed_process_left_is_not_read() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        drop(open(dir.path(), 100));
        let staging = dir.path().join("pages").join(STAGING_FILE);
        fs::write(&staging, [1; 70]).expect("written");
        let cache = open(dir.path(), 100);
        assert!(!staging.exists());
        assert_eq!(firsts(&cache), [0_u64; 0]);
        // A page cut short is no page.
        cache.insert(&key(0), &[7; 50], &|_| None).expect("kept");
        fs::write(cache.path(&key(0)), [7; 20]).expect("written");
        assert!(!cache.read(&key(0), &mut [(10, &mut [0; 20])]));
    }
}
