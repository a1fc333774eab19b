//! Corpus of the user's own files: text, JSON Lines, and folders of them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::files::files_below;
use super::shingles::Shingles;
use super::{Document, Source};
use crate::exit::{CliError, ExitStatus};

/// Minimum size of a document that is cut from a longer text file.
const CHUNK_BYTES: usize = 4 << 10;

/// Corpus of the user's files, a source per path.
///
/// # Errors
/// Exit status 2 if a path does not exist or two paths give the same name, 3 if one holds no text.
pub(in super::super) fn from_paths(paths: &[PathBuf]) -> Result<Vec<Source>, CliError> {
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
    fn names_fit_a_mix_file() {
        assert_eq!(source_name(Path::new("/x/My Notes (2).txt")), "my-notes--2");
        assert_eq!(source_name(Path::new("/")), "text");
    }
}
