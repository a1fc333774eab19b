//! Files that match the paths of a source. A pattern is matched folder by folder: only folders it can lead to are listed, and
//! each once, whatever links there are.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, DirEntry};
use std::path::{Component, Path, PathBuf};

use glob::Pattern;

use crate::config::SourceConfig;
use crate::error::{Error, Result};
use crate::manifest::{MANIFEST, UNITS};
use crate::progress::Progress;
use crate::remote;

/// Files of a source, each once, in the order of its patterns and then by name, with their names in ids. A folder `out` that
/// holds data of a build is not entered: a build does not read its own output.
///
/// # Errors
/// [`Error::NoInput`] for a pattern without a file, [`Error::BrokenInput`] for a dangling link and for a name that is not
/// UTF-8, [`Error::Interrupted`].
pub(super) fn find_files(
    source: &SourceConfig,
    folder: &Path,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<Vec<(PathBuf, String)>> {
    let (mut files, mut seen) = (Vec::new(), HashSet::new());
    for pattern in &source.paths {
        let found = if remote::is_remote(Path::new(pattern)) {
            remote::list_objects(&source.name, pattern)?
        } else {
            let found = PatternWalk::new(out, progress).expand(folder, pattern)?;
            if found.is_empty() {
                return Err(no_input(source, folder, pattern));
            }
            found
        };
        files.extend(found.into_iter().filter(|(path, _)| seen.insert(path.clone())));
    }
    Ok(files)
}

fn no_input(source: &SourceConfig, folder: &Path, pattern: &str) -> Error {
    let pattern_path = folder.join(pattern).display().to_string();
    Error::NoInput { source_name: source.name.clone(), pattern: pattern_path, hint: hint(folder, pattern) }
}

/// Escaped pattern for a folder or file whose name has the characters of a pattern.
fn hint(folder: &Path, pattern: &str) -> Option<String> {
    let mut at = folder.to_owned();
    for part in Path::new(pattern).components() {
        at.push(part);
        let text = part.as_os_str().to_string_lossy();
        if is_wild(&text) && at.exists() {
            let escaped = Pattern::escape(&text);
            return Some(format!("`{text}` is read as a pattern; write `{escaped}` for what has this name"));
        }
    }
    None
}

/// Component of a pattern, between slashes.
enum PatternPart {
    /// Name, root or `..`.
    Name(PathBuf),
    /// Matching names; hidden ones only where the pattern begins with a dot.
    Names(Pattern, bool),
    /// `**`: a folder and its subfolders, to any depth.
    Folders,
}

fn parts(pattern: &str) -> Vec<PatternPart> {
    let mut parts: Vec<PatternPart> = Vec::new();
    for component in Path::new(pattern).components() {
        let text = component.as_os_str().to_string_lossy();
        let part = match Pattern::new(&text) {
            _ if text == "**" => PatternPart::Folders,
            Ok(names) if is_wild(&text) => PatternPart::Names(names, text.starts_with('.')),
            _ => PatternPart::Name(component.as_os_str().into()),
        };
        if !matches!((parts.last(), &part), (Some(PatternPart::Folders), PatternPart::Folders)) {
            parts.push(part);
        }
    }
    if matches!(parts.last(), Some(PatternPart::Folders)) {
        parts.extend(Pattern::new("*").map(|all| PatternPart::Names(all, false)));
    }
    parts
}

fn is_wild(part: &str) -> bool {
    part.contains(['*', '?', '['])
}

/// Folders of a pattern before its first wildcard.
fn fixed_part(pattern: &str) -> PathBuf {
    let is_fixed = |part: &Component<'_>| !is_wild(&part.as_os_str().to_string_lossy());
    Path::new(pattern).components().take_while(is_fixed).collect()
}

/// Name of a file in ids, relative to the fixed part of its pattern: the same files elsewhere give the same output.
fn name(path: &Path, fixed: &Path) -> Result<String> {
    let relative = path.strip_prefix(fixed).ok().or_else(|| path.file_name().map(Path::new)).unwrap_or(path);
    let part = |part: Component<'_>| {
        let text = part.as_os_str().to_str().map(str::to_owned);
        text.ok_or_else(|| {
            Error::input(path, "the name is not UTF-8, so no document could be named after it; rename it")
        })
    };
    Ok(relative.components().map(part).collect::<Result<Vec<_>>>()?.join("/"))
}

struct PatternWalk<'a> {
    /// Output folder, where it holds data of a build.
    own: Option<PathBuf>,
    progress: &'a mut dyn Progress,
    files: Vec<PathBuf>,
}

impl<'a> PatternWalk<'a> {
    fn new(out: &Path, progress: &'a mut dyn Progress) -> Self {
        let is_own = out.join(MANIFEST).exists() || out.join(UNITS).exists();
        let own = is_own.then(|| out.canonicalize().ok()).flatten();
        Self { own, progress, files: Vec::new() }
    }

    /// Files that match a path or pattern, by name.
    fn expand(mut self, folder: &Path, pattern: &str) -> Result<Vec<(PathBuf, String)>> {
        let literal = folder.join(pattern);
        if literal.is_file() {
            let name = name(&literal, literal.parent().unwrap_or(Path::new("")))?;
            return Ok(vec![(literal, name)]);
        }
        self.go(folder, &parts(pattern))?;
        self.files.sort_unstable();
        // Several `**` in a pattern reach one file more than once.
        self.files.dedup();
        let fixed = folder.join(fixed_part(pattern));
        self.files.into_iter().map(|path| name(&path, &fixed).map(|name| (path, name))).collect()
    }

    fn go(&mut self, at: &Path, parts: &[PatternPart]) -> Result<()> {
        let Some((first, rest)) = parts.split_first() else { return self.take(at) };
        match first {
            PatternPart::Name(name) => self.go(&at.join(name), rest),
            PatternPart::Names(pattern, hidden) => {
                for entry in self.list(at)? {
                    let name = entry.file_name();
                    let name = name.to_string_lossy();
                    if pattern.matches(&name) && (*hidden || !name.starts_with('.')) {
                        self.go(&entry.path(), rest)?;
                    }
                }
                Ok(())
            }
            PatternPart::Folders => self.folders(at)?.iter().try_for_each(|folder| self.go(folder, rest)),
        }
    }

    /// Adds a path, if it is a file.
    fn take(&mut self, path: &Path) -> Result<()> {
        match fs::metadata(path) {
            Ok(found) if found.is_file() => self.files.push(path.to_owned()),
            Ok(_) => {}
            Err(_) if path.is_symlink() => {
                let target = fs::read_link(path).unwrap_or_default();
                let problem =
                    format!("is a link to {}, where nothing is; mend it, or remove it", target.display());
                return Err(Error::input(path, problem));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(path, "looking at")(error)),
        }
        Ok(())
    }

    /// Entries of a folder, by name; none where there is no folder.
    fn list(&mut self, folder: &Path) -> Result<Vec<DirEntry>> {
        if !self.progress.keep_going() {
            return Err(Error::Interrupted);
        }
        // An empty path is the current folder.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if !folder.is_dir() || self.is_own(folder)? {
            return Ok(Vec::new());
        }
        let listing = fs::read_dir(folder).map_err(Error::io(folder, "listing"))?;
        let mut entries = listing.collect::<Result<Vec<_>, _>>().map_err(Error::io(folder, "listing"))?;
        entries.sort_unstable_by_key(DirEntry::file_name);
        Ok(entries)
    }

    fn is_own(&self, folder: &Path) -> Result<bool> {
        let Some(own) = &self.own else { return Ok(false) };
        Ok(canonical(folder)?.starts_with(own))
    }

    /// A folder and all below it that are not hidden. Links are followed last, and only to unvisited folders.
    fn folders(&mut self, top: &Path) -> Result<Vec<PathBuf>> {
        let (mut found, mut visited) = (Vec::new(), HashSet::new());
        let mut starts = VecDeque::from([top.to_owned()]);
        while let Some(start) = starts.pop_front() {
            let mut open = vec![start];
            while let Some(folder) = open.pop() {
                if !folder.is_dir() || !visited.insert(canonical(&folder)?) {
                    continue;
                }
                for entry in self.list(&folder)? {
                    let path = entry.path();
                    if entry.file_name().to_string_lossy().starts_with('.') || !path.is_dir() {
                        continue;
                    }
                    if path.is_symlink() { starts.push_back(path) } else { open.push(path) }
                }
                found.push(folder);
            }
        }
        Ok(found)
    }
}

fn canonical(folder: &Path) -> Result<PathBuf> {
    folder.canonicalize().map_err(Error::io(folder, "looking at"))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::progress::NoProgress;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("has one")).expect("creatable");
            fs::write(path, "x").expect("writable");
        }
        dir
    }

    fn expand(dir: &Path, pattern: &str) -> Result<Vec<String>> {
        let found = PatternWalk::new(&dir.join("out"), &mut NoProgress).expand(dir, pattern)?;
        Ok(found.into_iter().map(|(_, name)| name).collect())
    }

    fn names(dir: &tempfile::TempDir, pattern: &str) -> Vec<String> {
        expand(dir.path(), pattern).expect("found")
    }

    #[test]
    fn names_do_not_say_where_files_lie() {
        assert_eq!(fixed_part("../a/b/*.jsonl"), Path::new("../a/b"));
        assert_eq!(fixed_part("*.jsonl"), Path::new(""));
        let name = |path, fixed| name(Path::new(path), Path::new(fixed)).expect("UTF-8");
        assert_eq!(name("x/../a/b/c/d.txt", "x/../a"), "b/c/d.txt");
        assert_eq!(name("/other/d.txt", "x"), "d.txt");
    }

    #[test]
    fn patterns_match_folder_by_folder() {
        let dir = folder(&["a/1.txt", "a/2.md", "a/b/3.txt", "a/b/c/4.txt", "e/5.txt", "[D]/6.txt"]);
        assert_eq!(names(&dir, "a/*.txt"), ["1.txt"]);
        assert_eq!(names(&dir, "a/1.txt"), ["1.txt"]);
        assert_eq!(names(&dir, "a/b/../?.txt"), ["1.txt"]);
        assert_eq!(names(&dir, "*/[1-5].txt"), ["a/1.txt", "e/5.txt"]);
        assert_eq!(names(&dir, "a/**/*.txt"), ["1.txt", "b/3.txt", "b/c/4.txt"]);
        assert_eq!(names(&dir, "a/**/**/c/*"), ["b/c/4.txt"]);
        assert_eq!(names(&dir, "**/b/**/*.txt"), ["a/b/3.txt", "a/b/c/4.txt"]);
        assert_eq!(names(&dir, "e/**"), ["5.txt"]);
        assert_eq!(names(&dir, "[[]D]/*"), ["[D]/6.txt"]);
        for nothing in ["[D]/*", "a/*.json", "nowhere/**/*", "a/1.txt/*"] {
            assert_eq!(names(&dir, nothing), [""; 0], "{nothing}");
        }
        assert_eq!(
            hint(dir.path(), "[D]/*").expect("there is such a folder"),
            "`[D]` is read as a pattern; write `[[]D[]]` for what has this name"
        );
        assert_eq!(hint(dir.path(), "a/*.json"), None);
    }

    #[test]
    fn hidden_files_are_found_only_where_they_are_asked_for() {
        let dir = folder(&["a/.1.txt", "a/2.txt", "a/.h/3.txt"]);
        assert_eq!(names(&dir, "a/*"), ["2.txt"]);
        assert_eq!(names(&dir, "**/*.txt"), ["a/2.txt"]);
        assert_eq!(names(&dir, "a/.*"), [".1.txt"]);
        assert_eq!(names(&dir, "a/.h/*"), ["3.txt"]);
    }

    #[test]
    fn links_are_followed_once_and_loops_end() {
        let dir = folder(&["a/1.txt", "a/b/2.txt", "other/3.txt"]);
        let at = |name: &str| dir.path().join(name);
        symlink(".", at("a/0-self")).expect("linkable");
        symlink("../../a", at("a/b/up")).expect("linkable");
        symlink("../other", at("a/linked")).expect("linkable");
        symlink("1.txt", at("a/also.txt")).expect("linkable");
        assert_eq!(names(&dir, "a/**/*.txt"), ["1.txt", "also.txt", "b/2.txt", "linked/3.txt"]);
        assert_eq!(names(&dir, "a/*/*.txt"), ["0-self/1.txt", "0-self/also.txt", "b/2.txt", "linked/3.txt"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = folder(&["a/1.txt"]);
        symlink("nowhere", dir.path().join("a/2.txt")).expect("linkable");
        symlink("3.txt", dir.path().join("a/3.txt")).expect("linkable");
        for (pattern, problem) in
            [("a/2*", "is a link to nowhere, where nothing is"), ("a/3*", "is a link to 3.txt")]
        {
            let error = expand(dir.path(), pattern).expect_err("dangling").to_string();
            assert!(error.contains(problem), "{error}");
        }
        let odd = std::ffi::OsString::from_vec(b"\xff.md".to_vec());
        fs::write(dir.path().join("a").join(odd), "x").expect("writable");
        assert!(expand(dir.path(), "a/*.md").expect_err("odd").to_string().contains("is not UTF-8"));
    }

    #[test]
    fn a_build_does_not_read_what_it_made() {
        let dir = folder(&["1.parquet", "out/train/s/00000.parquet", "out/manifest.json", "other/2.parquet"]);
        assert_eq!(names(&dir, "**/*.parquet"), ["1.parquet", "other/2.parquet"]);
        fs::remove_file(dir.path().join("out/manifest.json")).expect("removable");
        assert_eq!(names(&dir, "**/*.parquet").len(), 3, "what is not ours is a source like any other");
    }

    #[test]
    fn walks_can_be_stopped() {
        struct StopAtOnce;
        impl Progress for StopAtOnce {
            fn start(&mut self, _: crate::progress::Phase, _: u64) {}
            fn advance(&mut self, _: u64) {}
            fn finish(&mut self) {}
            fn keep_going(&mut self) -> bool {
                false
            }
        }
        let dir = folder(&["a/1.txt"]);
        let stopped = PatternWalk::new(dir.path(), &mut StopAtOnce).expand(dir.path(), "**/*.txt");
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }
}
