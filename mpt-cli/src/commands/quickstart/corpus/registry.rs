//! Default corpus: the sources of the crates of this binary's lock file, in cargo's registry.
//!
//! The selection is a pure function of the files: one version of each crate, a file of each crate in turn until the
//! source is full. Generated files and near-duplicates of earlier documents are left out, so that held-out documents are
//! not copies of training documents.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files::{files_below, sorted_entries};
use super::shingles::Shingles;
use super::{Document, Source};
use crate::exit::CliError;

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

/// Default corpus.
///
/// # Errors
/// Exit status 3 if cargo's registry is not on this machine, with an alternative.
pub(in super::super) fn from_cargo(lock: &str) -> Result<Vec<Source>, CliError> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_crates_that_built_this_give_three_sources() {
        let Ok(sources) = from_cargo(include_str!("../../../../../Cargo.lock")) else {
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
}
