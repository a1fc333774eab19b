//! Training text of quickstart: the sources of the crates in cargo's registry, or files that the user names.
//!
//! The selection is a pure function of the files: the crates of the lock file of this binary, one version of each, a
//! file of each crate in turn until the source is full. Generated files and near-duplicates of earlier documents are
//! left out, so that held-out documents are not copies of training documents.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::exit::{CliError, ExitStatus};

/// Document, as in the JSONL files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Document {
    /// Origin: `crate-version/path`, or a path below the user's.
    #[serde(default)]
    pub(super) id: String,
    /// Text.
    pub(super) text: String,
}

/// Source: named documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Name in the mix.
    pub(super) name: String,
    /// Documents in their final order.
    pub(super) documents: Vec<Document>,
}

/// Kind of files in cargo's registry, with the bytes to take.
struct FileKind {
    name: &'static str,
    budget_bytes: usize,
    matches: fn(&Path) -> bool,
}

/// Sources of the default corpus, in the order of the mix.
const FILE_KINDS: [FileKind; 3] = [
    FileKind { name: "code", budget_bytes: 6 << 20, matches: is_rust },
    FileKind { name: "markdown", budget_bytes: 3 << 20, matches: is_markdown },
    FileKind { name: "licences", budget_bytes: 1 << 20, matches: is_license },
];

/// Sizes of files that become documents. Smaller ones have little to learn from, larger ones are tables and bindings.
const DOCUMENT_BYTES: std::ops::RangeInclusive<u64> = 256..=(96 << 10);

/// Minimum size of a document that is cut from a longer text file.
const CHUNK_BYTES: usize = 4 << 10;

/// Default corpus.
///
/// # Errors
/// Exit status 3 if cargo's registry is not on this machine, with an alternative.
pub(super) fn from_cargo(lock: &str) -> Result<Vec<Source>, CliError> {
    let crates = fetched_crates(lock, &registry_roots());
    let sources: Vec<_> = FILE_KINDS.iter().map(|kind| kind.collect(&crates)).collect();
    match sources.iter().find(|source| source.documents.is_empty()) {
        None => Ok(sources),
        Some(source) => Err(CliError::data(format!(
            "the sources of the crates cargo fetched hold no {}",
            source.name
        ))
        .help(
            "build this project with cargo first, or name text of your own: `mpt quickstart --corpus PATH…`",
        )),
    }
}

/// Corpus of the user's files, a source per path.
///
/// # Errors
/// Exit status 2 if a path does not exist or two paths give the same name, 3 if one holds no text.
pub(super) fn from_paths(paths: &[PathBuf]) -> Result<Vec<Source>, CliError> {
    let sources: Vec<_> = paths.iter().map(|path| from_path(path)).collect::<Result<_, _>>()?;
    let mut names = HashSet::new();
    match sources.iter().find(|source| !names.insert(&source.name)) {
        None => Ok(sources),
        Some(source) => {
            Err(CliError::usage(format!("two paths of `--corpus` would both be called `{}`", source.name))
                .help("name the folder that holds both, or rename one"))
        }
    }
}

impl FileKind {
    /// Collects a file of each crate in turn, until the budget or the files are used up.
    fn collect(&self, crates: &BTreeMap<String, PathBuf>) -> Source {
        let mut queues: Vec<_> =
            crates.iter().map(|(name, root)| (name, root, self.files(root).into_iter())).collect();
        let mut seen = Shingles::default();
        let mut documents = Vec::new();
        let mut bytes = 0;
        while bytes < self.budget_bytes && !queues.is_empty() {
            queues.retain_mut(|(name, root, files)| {
                let Some(file) = files.next() else { return false };
                if bytes < self.budget_bytes
                    && let Some(text) = read_handwritten(&file).filter(|text| seen.is_new(text))
                {
                    bytes += text.len();
                    documents.push(Document { id: document_id(name, root, &file), text });
                }
                true
            });
        }
        Source { name: self.name.to_owned(), documents }
    }

    fn files(&self, root: &Path) -> Vec<PathBuf> {
        let mut files = files_below(root);
        files.retain(|file| (self.matches)(file) && has_document_size(file));
        files
    }
}

/// Folders of the lock file's crates in cargo's registry, by name and version; the last version of each.
fn fetched_crates(lock: &str, roots: &[PathBuf]) -> BTreeMap<String, PathBuf> {
    let mut crates = BTreeMap::new();
    for (name, version) in locked_crates(lock) {
        let folder = format!("{name}-{version}");
        if let Some(root) = roots.iter().map(|root| root.join(&folder)).find(|path| path.is_dir()) {
            crates.insert(name.to_owned(), root);
        }
    }
    crates
}

/// Name and version of each package with a source, in the order of the lock file.
fn locked_crates(lock: &str) -> impl Iterator<Item = (&str, &str)> {
    lock.split("[[package]]").skip(1).filter_map(|package| {
        let field = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key))?;
            line.strip_prefix(" = \"")?.strip_suffix('"')
        };
        field("source")?;
        Some((field("name")?, field("version")?))
    })
}

/// Folders where cargo unpacks crates, sorted.
fn registry_roots() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    home.map(|home| sorted_entries(&home.join("registry").join("src"))).unwrap_or_default()
}

fn from_path(path: &Path) -> Result<Source, CliError> {
    let metadata = path.metadata().map_err(|error| CliError::read(ExitStatus::Usage, path, error))?;
    let documents = if metadata.is_dir() { folder_documents(path) } else { file_documents(path)? };
    if documents.is_empty() {
        return Err(CliError::data(format!("{}: no text here", path.display())).help(
            "`--corpus` takes UTF-8 text files, JSON Lines with a `text` field, and folders of such files",
        ));
    }
    Ok(Source { name: source_name(path), documents })
}

/// Documents of all text files below a folder. Other files are skipped.
fn folder_documents(folder: &Path) -> Vec<Document> {
    let mut seen = Shingles::default();
    let mut documents = Vec::new();
    for file in files_below(folder) {
        let Ok(found) = file_documents(&file) else { continue };
        let relative = file.strip_prefix(folder).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        let named = found
            .into_iter()
            .map(|document| Document { id: format!("{relative}{}", document.id), ..document });
        documents.extend(named.filter(|document| seen.is_new(&document.text)));
    }
    documents
}

/// Documents of a file: the lines of a `.jsonl`, else chunks of its text.
fn file_documents(path: &Path) -> Result<Vec<Document>, CliError> {
    let bytes = std::fs::read(path).map_err(|error| CliError::read(ExitStatus::Data, path, error))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        CliError::data(format!("{}: not UTF-8 text from byte {at} on", path.display()))
            .help("for compressed or columnar data write a mix file and run `mpt data build`")
    })?;
    if path.extension().is_some_and(|extension| extension == "jsonl") {
        return json_documents(path, &text);
    }
    let chunks = split_at_blank_lines(&text).into_iter().enumerate();
    Ok(chunks.map(|(n, chunk)| Document { id: format!("#{n}"), text: chunk.to_owned() }).collect())
}

fn json_documents(path: &Path, text: &str) -> Result<Vec<Document>, CliError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(n, line)| {
            let document: Document = serde_json::from_str(line).map_err(|error| {
                CliError::data(format!("{}: line {}: {error}", path.display(), n + 1))
                    .help("each line must be an object with a `text`")
            })?;
            Ok(Document { id: format!("#{n}"), ..document })
        })
        .collect()
}

/// Splits a text at empty lines into chunks of about [`CHUNK_BYTES`].
fn split_at_blank_lines(text: &str) -> Vec<&str> {
    let mut chunks = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices("\n\n") {
        if at - start >= CHUNK_BYTES {
            chunks.push(&text[start..at + 2]);
            start = at + 2;
        }
    }
    chunks.push(&text[start..]);
    chunks.retain(|chunk| !chunk.trim().is_empty());
    chunks
}

/// Source name for a mix file: the stem of the path in lower-case letters, digits and `-`.
fn source_name(path: &Path) -> String {
    let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let stem = canonical.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "text".to_owned() } else { name.to_owned() }
}

fn document_id(name: &str, root: &Path, file: &Path) -> String {
    let relative = file.strip_prefix(root).unwrap_or(file).to_string_lossy().replace('\\', "/");
    format!("{name}/{relative}")
}

/// Text of a file, unless it is generated.
fn read_handwritten(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    (!is_generated(&text)).then_some(text)
}

/// Whether a text is generated, by its header or by lines that no one would write.
fn is_generated(text: &str) -> bool {
    let head: String = text.chars().take(2048).collect::<String>().to_lowercase();
    let says_so =
        ["@generated", "generated by", "generated from", "do not edit", "autogenerated", "auto-generated"];
    let lines = text.lines().count().max(1);
    let letters = text.bytes().filter(u8::is_ascii_alphabetic).count();
    says_so.iter().any(|mark| head.contains(mark))
        || text.len() / lines > 200
        || text.lines().any(|line| line.len() > 2000)
        || letters * 3 < text.len()
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md") && !is_license(path)
}

fn is_license(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let starts = ["license", "licence", "copying", "copyright", "unlicense", "notice"];
    starts.iter().any(|start| name.starts_with(start)) && !is_rust(path)
}

fn has_document_size(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| DOCUMENT_BYTES.contains(&metadata.len()))
}

/// Files below a folder, sorted, without hidden files and links.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path != folder && (hidden || path.is_symlink()) {
            continue;
        }
        match path.is_dir() {
            true => open.extend(sorted_entries(&path).into_iter().rev()),
            false => files.push(path),
        }
    }
    files
}

fn sorted_entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Word shingles of earlier documents, to recognize near-duplicates.
#[derive(Debug, Default)]
struct Shingles {
    seen: HashSet<u64>,
}

impl Shingles {
    /// Words per shingle.
    const WORDS: usize = 8;

    /// Whether at least a quarter of the text's shingles is new. Adds them all.
    fn is_new(&mut self, text: &str) -> bool {
        let words: Vec<&str> =
            text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let runs = words.windows(Self::WORDS.min(words.len()).max(1));
        let total = runs.len();
        let new = runs.filter(|run| self.seen.insert(xxh3_64(run.join(" ").as_bytes()))).count();
        new * 4 >= total && new > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROSE: &str =
        "The allocator hands out pages in the order they were freed, which keeps the working set small.\n";

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    fn numbered(n: usize) -> String {
        (0..40).map(|k| format!("fn item_{n}_{k}() -> usize {{ {k} }}\n")).collect()
    }

    #[test]
    fn the_lock_file_names_crates_with_a_source() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"x\"\n\n[[package]]\nname = \"mine\"\nversion = \"0.1.0\"\n";
        assert_eq!(locked_crates(lock).collect::<Vec<_>>(), [("a", "1.0.0")]);
    }

    #[test]
    fn crates_take_turns_and_copies_are_dropped() {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), "a-1.0.0/src/a.rs", &numbered(1));
        write(dir.path(), "a-1.0.0/src/b.rs", &numbered(2));
        write(dir.path(), "a-1.0.0/src/made.rs", &format!("// @generated\n{}", numbered(3)));
        write(dir.path(), "b-2.0.0/src/a.rs", &numbered(4));
        write(dir.path(), "b-2.0.0/src/copy.rs", &numbered(1));
        let crates =
            BTreeMap::from(["a-1.0.0", "b-2.0.0"].map(|name| (name.to_owned(), dir.path().join(name))));
        let ids: Vec<_> =
            FILE_KINDS[0].collect(&crates).documents.into_iter().map(|document| document.id).collect();
        assert_eq!(ids, ["a-1.0.0/src/a.rs", "b-2.0.0/src/a.rs", "a-1.0.0/src/b.rs"]);
    }

    #[test]
    fn a_folder_gives_documents_in_sorted_order() {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), "b.txt", &PROSE.repeat(2));
        write(
            dir.path(),
            "a/x.jsonl",
            "{\"text\": \"one two three\"}\n\n{\"id\": \"k\", \"text\": \"four five six\"}\n",
        );
        std::fs::write(dir.path().join("z.bin"), [0xff, 0xfe]).expect("a file");
        write(dir.path(), ".hidden/c.txt", PROSE);
        let sources = from_paths(&[dir.path().to_owned()]).expect("text");
        let ids: Vec<_> = sources[0].documents.iter().map(|document| document.id.as_str()).collect();
        assert_eq!(ids, ["a/x.jsonl#0", "a/x.jsonl#2", "b.txt#0"]);
    }

    #[test]
    fn long_texts_are_cut_at_empty_lines_and_nothing_is_lost() {
        let text = format!("{PROSE}\n").repeat(200);
        let chunks = split_at_blank_lines(&text);
        assert!(
            chunks.len() > 2 && chunks.iter().all(|chunk| chunk.len() < CHUNK_BYTES + 200),
            "{}",
            chunks.len()
        );
        assert_eq!(chunks.concat(), text);
    }

    #[test]
    fn unusable_paths_are_refused_by_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let missing = from_paths(&[dir.path().join("none.txt")]).expect_err("no such file");
        assert_eq!(missing.status(), ExitStatus::Usage);
        std::fs::write(dir.path().join("x.bin"), [b'a', 0xff]).expect("a file");
        let binary = from_paths(&[dir.path().join("x.bin")]).expect_err("not text");
        assert!(binary.to_string().contains("x.bin: not UTF-8 text from byte 1"), "{binary}");
        write(dir.path(), "broken.jsonl", "{\"text\": \"a\"}\n{\"body\": 1}\n");
        let broken = from_paths(&[dir.path().join("broken.jsonl")]).expect_err("no text field");
        assert!(broken.to_string().contains("broken.jsonl: line 2: "), "{broken}");
        write(dir.path(), "a/notes.txt", PROSE);
        write(dir.path(), "b/notes.md", PROSE);
        let twice = from_paths(&[dir.path().join("a/notes.txt"), dir.path().join("b/notes.md")])
            .expect_err("one name");
        assert_eq!(twice.status(), ExitStatus::Usage);
    }

    #[test]
    fn the_crates_that_built_this_give_three_sources() {
        let Ok(sources) = from_cargo(include_str!("../../../../Cargo.lock")) else {
            println!("skipped: the crates were not built from cargo's registry");
            return;
        };
        assert_eq!(
            sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>(),
            ["code", "markdown", "licences"]
        );
        for (source, kind) in sources.iter().zip(&FILE_KINDS) {
            let bytes: usize = source.documents.iter().map(|document| document.text.len()).sum();
            println!("{}: {} documents, {bytes} bytes", source.name, source.documents.len());
            assert!(source.documents.len() >= 10, "{}", source.name);
            assert!(bytes < kind.budget_bytes + (96 << 10), "{}: {bytes} bytes", source.name);
        }
    }

    #[test]
    fn names_fit_a_mix_file() {
        assert_eq!(source_name(Path::new("/x/My Notes (2).txt")), "my-notes--2");
        assert_eq!(source_name(Path::new("/")), "text");
    }
}
