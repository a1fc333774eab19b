//! Pages on disk: a folder of its own that never holds more than its limit.
//!
//! A page is `HASH/FIRST-ROWS.page` below the folder. Every change is made under one lock, which goes with the process that
//! holds it: so there is one file aside at most, and what a killed process left of it is overwritten by the next. Room is
//! made before anything is written. Readers take no lock: a page appears whole by its renaming, and rows are checked by whoever
//! reads them, since a page may be damaged by the disk.
//!
//! The file that is locked is also a journal, by which each process learns what the others wrote and removed: a page enters it
//! before it is there, and leaves it after it is gone, so that whoever is killed in between leaves too large a sum, never one
//! too small.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::options::CacheOptions;
use super::page::PageKey;
use crate::error::{Error, Result};

/// The file that says whose folder this is, that is locked, and that is the journal.
const JOURNAL_FILE: &str = "mpt-page-cache";
/// What is being written.
const STAGING_FILE: &str = "page.tmp";
/// A journal longer than this is begun anew; the other processes then look at the folder.
const MAX_JOURNAL_BYTES: u64 = 4 << 20;
/// The first line of a journal: it changes whenever one is begun.
const EPOCH_BYTES: usize = 17;

/// A folder of pages. Processes of one machine may share it.
#[derive(Debug)]
pub(super) struct DiskCache {
    pages: PathBuf,
    limit: u64,
    held: Mutex<CacheIndex>,
}

/// What this process knows to be in the folder.
#[derive(Debug, Default)]
struct CacheIndex {
    pages: BTreeMap<PageKey, CachedPage>,
    /// The pages by when they were used.
    order: BTreeMap<u64, PageKey>,
    total: u64,
    clock: u64,
    /// How far the journal was read, and which.
    epoch: Vec<u8>,
    journal: u64,
}

#[derive(Debug, Clone, Copy)]
struct CachedPage {
    bytes: u64,
    used: u64,
}

impl CacheIndex {
    fn insert(&mut self, key: PageKey, bytes: u64) {
        self.remove(&key);
        self.clock += 1;
        self.total += bytes;
        self.order.insert(self.clock, key.clone());
        self.pages.insert(key, CachedPage { bytes, used: self.clock });
    }

    fn remove(&mut self, key: &PageKey) {
        if let Some(page) = self.pages.remove(key) {
            self.order.remove(&page.used);
            self.total -= page.bytes;
        }
    }

    fn used(&mut self, key: &PageKey) {
        if let Some(page) = self.pages.get(key).copied() {
            self.insert(key.clone(), page.bytes);
        }
    }

    /// The pages to remove so that `bytes` fit: first those that nobody is known to need, the longest unused of them first, then
    /// those needed last. `None` where one would have to go that is needed before `own`.
    fn victims(&self, bytes: u64, limit: u64, own: u64, next_use: NextUse<'_>) -> Option<Vec<PageKey>> {
        let mut excess = (self.total + bytes).saturating_sub(limit);
        let (mut victims, mut needed) = (Vec::new(), Vec::new());
        for key in self.order.values() {
            if excess == 0 {
                return Some(victims);
            }
            match next_use(key) {
                Some(next) => needed.push((next, key)),
                None => {
                    excess = excess.saturating_sub(self.pages[key].bytes);
                    victims.push(key.clone());
                }
            }
        }
        needed.sort_unstable_by_key(|(next, _)| std::cmp::Reverse(*next));
        for (next, key) in needed {
            if excess == 0 {
                break;
            }
            if next < own {
                return None;
            }
            excess = excess.saturating_sub(self.pages[key].bytes);
            victims.push(key.clone());
        }
        (excess == 0).then_some(victims)
    }
}

/// When a page is needed next, for as far as that is known: a larger number is later.
pub(super) type NextUse<'a> = &'a dyn Fn(&PageKey) -> Option<u64>;

impl DiskCache {
    /// Opens a folder, which is made if need be; what a killed process left aside is removed.
    ///
    /// # Errors
    /// [`Error::NotOurs`] when there is something else in it, [`Error::Io`].
    pub(super) fn open(options: &CacheOptions) -> Result<Self> {
        let pages = options.dir.join("pages");
        fs::create_dir_all(&pages).map_err(Error::io(&pages, "making the folder"))?;
        let cache = Self { pages, limit: options.limit, held: Mutex::default() };
        let mut journal = cache.lock()?;
        if journal.metadata().map_err(Error::io(&cache.pages, "looking at"))?.len() == 0
            && cache.holds_others()?
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

    /// Reads parts of a page into one buffer each; `false` where the page is not here.
    pub(super) fn read(&self, key: &PageKey, parts: &mut [(u64, &mut [u8])]) -> bool {
        let whole = || -> io::Result<()> {
            let mut file = File::open(self.path(key))?;
            for (from, buffer) in parts {
                file.seek(SeekFrom::Start(*from))?;
                file.read_exact(buffer)?;
            }
            Ok(())
        };
        let is_here = whole().is_ok();
        if is_here {
            self.held().used(key);
        }
        is_here
    }

    /// The most bytes it holds.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether a page is here.
    pub(super) fn has(&self, key: &PageKey) -> bool {
        self.path(key).is_file()
    }

    /// Keeps a page, unless all that would have to go for it is needed sooner.
    pub(super) fn put(&self, key: &PageKey, bytes: &[u8], next_use: NextUse<'_>) -> Result<()> {
        let size = bytes.len() as u64;
        if size > self.limit {
            return Ok(());
        }
        let mut journal = self.lock()?;
        self.follow(&mut journal)?;
        let own = next_use(key).unwrap_or(u64::MAX);
        if self.has(key) || !self.make_room(&mut journal, size, own, next_use)? {
            return Ok(());
        }
        self.note(&mut journal, '+', key, size)?;
        let (aside, path) = (self.pages.join(STAGING_FILE), self.path(key));
        let written = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(&self.pages))?;
            fs::write(&aside, bytes)?;
            fs::rename(&aside, &path)
        };
        written().map_err(Error::io(&path, "writing"))
    }

    /// Forgets a page, which is damaged.
    pub(super) fn remove(&self, key: &PageKey) -> Result<()> {
        let mut journal = self.lock()?;
        self.follow(&mut journal)?;
        self.delete(&mut journal, key)
    }

    /// Removes pages until there is room for one that is needed at `own`; `false` where there cannot be. Under the lock.
    fn make_room(&self, journal: &mut File, bytes: u64, own: u64, next_use: NextUse<'_>) -> Result<bool> {
        self.follow(journal)?;
        let victims = self.held().victims(bytes, self.limit, own, next_use);
        let Some(victims) = victims else { return Ok(false) };
        victims.iter().try_for_each(|key| self.delete(journal, key))?;
        Ok(true)
    }

    /// Reads what other processes did since. Under the lock.
    fn follow(&self, journal: &mut File) -> Result<()> {
        let wrong = |action| Error::io(&self.pages, action);
        let mut epoch = vec![0; EPOCH_BYTES];
        journal.seek(SeekFrom::Start(0)).map_err(wrong("reading the journal of"))?;
        let is_begun = journal.read_exact(&mut epoch).is_ok();
        let length = journal.metadata().map_err(wrong("looking at the journal of"))?.len();
        if !is_begun || self.held().epoch != epoch || length > MAX_JOURNAL_BYTES {
            return self.look(journal, !is_begun || length > MAX_JOURNAL_BYTES);
        }
        let from = self.held().journal;
        journal.seek(SeekFrom::Start(from)).map_err(wrong("reading the journal of"))?;
        let mut news = String::new();
        if journal.read_to_string(&mut news).is_err() {
            return self.look(journal, true);
        }
        let mut held = self.held();
        // What a killed process left of a line is no line.
        for line in news.lines().filter_map(entry) {
            match line {
                (true, key, bytes) => held.insert(key, bytes),
                (false, key, _) => held.remove(&key),
            }
        }
        held.journal = length;
        Ok(())
    }

    /// Looks at what is in the folder. Under the lock.
    fn look(&self, journal: &mut File, begin: bool) -> Result<()> {
        let wrong = |action| Error::io(&self.pages, action);
        if begin {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let epoch = format!("{:016x}\n", now.as_nanos() as u64);
            let begun = journal.set_len(0).and_then(|()| journal.write_all(epoch.as_bytes()));
            begun.map_err(wrong("writing the journal of"))?;
        }
        let mut epoch = vec![0; EPOCH_BYTES];
        let read = journal.seek(SeekFrom::Start(0)).and_then(|_| journal.read_exact(&mut epoch));
        read.map_err(wrong("reading the journal of"))?;
        let length = journal.metadata().map_err(wrong("looking at the journal of"))?.len();
        let mut found = Vec::new();
        let mut held = CacheIndex { epoch, journal: length, ..CacheIndex::default() };
        for folder in self.entries(&self.pages)? {
            let Some(hash) = name_of(&folder).filter(|name| is_hash(name)) else { continue };
            let hash: Arc<str> = hash.into();
            for path in self.entries(&folder)? {
                let Some((first, rows)) = name_of(&path).and_then(parse) else { continue };
                let Ok(data) = path.metadata() else { continue };
                let key = PageKey { sha256: hash.clone(), first, rows };
                found.push((data.modified().ok(), key, data.len()));
            }
        }
        // Who read what is not known: what was written first goes first.
        found.sort();
        found.into_iter().for_each(|(_, key, bytes)| held.insert(key, bytes));
        *self.held() = held;
        Ok(())
    }

    /// Writes down what happens, here and in the journal. Under the lock.
    fn note(&self, journal: &mut File, sign: char, key: &PageKey, bytes: u64) -> Result<()> {
        let line = format!("\n{sign} {} {} {} {bytes}\n", key.sha256, key.first, key.rows);
        journal.write_all(line.as_bytes()).map_err(Error::io(&self.pages, "writing the journal of"))?;
        let mut held = self.held();
        match sign {
            '+' => held.insert(key.clone(), bytes),
            _ => held.remove(key),
        }
        held.journal += line.len() as u64;
        Ok(())
    }

    /// Whether something is in the folder that is not ours.
    fn holds_others(&self) -> Result<bool> {
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
            _ => self.note(journal, '-', key, 0),
        }
    }

    fn path(&self, key: &PageKey) -> PathBuf {
        self.pages.join(&*key.sha256).join(format!("{}-{}.page", key.first, key.rows))
    }

    /// Waits for the lock of the folder.
    fn lock(&self) -> Result<File> {
        let mark = self.pages.join(JOURNAL_FILE);
        let failed = |action| Error::io(&mark, action);
        let file =
            File::options().create(true).read(true).append(true).open(&mark).map_err(failed("creating"))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => file.lock().map_err(failed("locking"))?,
            Err(TryLockError::Error(error)) => return Err(failed("locking")(error)),
        }
        Ok(file)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, CacheIndex> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn is_hash(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A line of the journal: whether the page came, which, and its bytes.
fn entry(line: &str) -> Option<(bool, PageKey, u64)> {
    let mut parts = line.split(' ');
    let came = match parts.next()? {
        "+" => true,
        "-" => false,
        _ => return None,
    };
    let sha256 = parts.next().filter(|name| is_hash(name))?.into();
    let (first, rows, bytes) =
        (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((came, PageKey { sha256, first, rows }, bytes))
}

/// The rows that a page's name says.
fn parse(name: &str) -> Option<(u64, u64)> {
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
        cache.follow(&mut journal).expect("readable");
        let known = cache.held().pages.clone();
        cache.look(&mut journal, false).expect("listable");
        assert_eq!(known.len(), cache.held().pages.len(), "the journal says what is there");
        cache.held().pages.keys().map(|key| key.first).collect()
    }

    #[test]
    fn the_limit_holds_and_the_longest_unused_goes_first() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let cache = open(dir.path(), 200);
        for first in 0..3 {
            cache.put(&key(first), &[first as u8; 90], &|_| None).expect("kept");
        }
        assert_eq!(firsts(&cache), [1, 2]);
        let mut byte = [0];
        assert!(cache.read(&key(1), &mut [(89, &mut byte)]) && byte == [1]);
        cache.put(&key(3), &[3; 90], &|_| None).expect("kept");
        assert_eq!(firsts(&cache), [1, 3], "page 1 was used after page 2");
        cache.put(&key(4), &[4; 201], &|_| None).expect("not kept");
        assert_eq!(firsts(&cache), [1, 3], "what is larger than all is not kept");
        assert_eq!(firsts(&open(dir.path(), 100)), [3], "another process with a smaller limit");
    }

    #[test]
    fn what_is_needed_last_goes_first() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let cache = open(dir.path(), 200);
        let next = |key: &PageKey| Some([10, 30, 20, 40][key.first as usize]);
        for first in 0..4 {
            cache.put(&key(first), &[0; 90], &next).expect("fine");
        }
        assert_eq!(firsts(&cache), [0, 2], "page 3 is needed after all others, so it was not kept at all");
    }

    #[test]
    fn processes_that_share_a_folder_share_the_limit() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let both = [open(dir.path(), 300), open(dir.path(), 300)];
        for first in 0..12 {
            both[first as usize % 2].put(&key(first), &[0; 90], &|_| None).expect("kept");
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
            cache.put(&key(first), &[0; 90], &|_| None).expect("kept");
        }
        assert!(other.exists() && dir.path().join("pages/notes/0-4.page").exists());
    }

    #[test]
    fn what_a_killed_process_left_is_not_read() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        drop(open(dir.path(), 100));
        let aside = dir.path().join("pages").join(STAGING_FILE);
        fs::write(&aside, [1; 70]).expect("written");
        let cache = open(dir.path(), 100);
        assert!(!aside.exists());
        assert_eq!(firsts(&cache), [0_u64; 0]);
        // A page cut short is no page.
        cache.put(&key(0), &[7; 50], &|_| None).expect("kept");
        fs::write(cache.path(&key(0)), [7; 20]).expect("written");
        assert!(!cache.read(&key(0), &mut [(10, &mut [0; 20])]));
    }
}
