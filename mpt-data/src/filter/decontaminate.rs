//! `decontaminate`: drops documents that share an n-gram with an evaluation set.
//!
//! Here a *word* is a sequence of letters and digits (the Unicode property `Alphabetic` or a number), in lower case: neither
//! punctuation nor white space makes a difference. A text of fewer than `n` words has no n-gram.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ngrams::{NgramHashes, fmix64};
use super::{DECONTAMINATE, DocumentView, DropReason, InvalidKey, Rule, check_local, list_file};
use crate::error::{Error, Result};

/// Evaluation sets, and the length of n-grams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decontaminate {
    /// Files of evaluation sets, relative to the run file: `.jsonl` (compressed too), and others as one text each.
    pub paths: Vec<String>,
    /// Words in an n-gram: 13 in Brown et al. 2020 (GPT-3), 12 in datatrove.
    #[serde(default = "thirteen")]
    pub n: usize,
    /// Fields of a JSON line that make one text, in this order, so that n-grams may span a question and its answer.
    /// Empty: every string in the line, in lists and objects too, is a text of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

fn thirteen() -> usize {
    13
}

impl Decontaminate {
    pub(super) fn check(&self) -> std::result::Result<(), InvalidKey> {
        if self.paths.is_empty() {
            return Err(InvalidKey::new("paths", "empty", "at least one file of an evaluation set"));
        }
        if !(1..=1000).contains(&self.n) {
            return Err(InvalidKey::new("n", self.n.to_string(), "from 1 to 1000 words"));
        }
        self.paths.iter().try_for_each(|path| check_local("paths", path))
    }
}

/// N-grams of all evaluation sets.
#[derive(Debug)]
pub(super) struct EvalNgrams {
    n: usize,
    ngrams: HashSet<u64>,
}

impl EvalNgrams {
    pub(super) fn load(config: &Decontaminate, folder: &Path) -> Result<Self> {
        let mut found = Self { n: config.n, ngrams: HashSet::new() };
        let mut scratch = NgramHashes::default();
        for path in config.paths.iter().map(|path| folder.join(path)) {
            let texts = texts(&path, &config.fields)?;
            let longest = texts.iter().map(|text| found.add(text, &mut scratch)).max().unwrap_or(0);
            if longest < config.n {
                let n = config.n;
                let problem = format!("no text has {n} words, so there is nothing to look for; lower `n`");
                return Err(Error::input(&path, problem));
            }
        }
        Ok(found)
    }

    /// Adds the n-grams of a text, and returns its number of words.
    fn add(&mut self, text: &str, scratch: &mut NgramHashes) -> usize {
        scratch.reset(words(text).map(|word| (hash(word), 0)));
        self.ngrams.extend(scratch.hashes(self.n));
        scratch.len()
    }
}

impl Rule for EvalNgrams {
    fn apply(&self, view: &mut DocumentView<'_>) -> Option<DropReason> {
        let ngrams = &mut view.scratch.ngrams;
        ngrams.reset(words(&view.text).map(|word| (hash(word), 0)));
        let first = ngrams.hashes(self.n).position(|hash| self.ngrams.contains(&hash))?;
        let run: Vec<_> = words(&view.text).skip(first).take(self.n).map(str::to_lowercase).collect();
        Some(DropReason { rule: DECONTAMINATE, value: run.join(" ") })
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Hash of a word in lower case.
fn hash(word: &str) -> u64 {
    let lower = word.chars().flat_map(char::to_lowercase);
    fmix64(lower.fold(0xCBF2_9CE4_8422_2325, |hash, c| {
        (hash ^ u64::from(u32::from(c))).wrapping_mul(0x0000_0100_0000_01B3)
    }))
}

/// Texts of a file.
fn texts(path: &Path, fields: &[String]) -> Result<Vec<String>> {
    let text = list_file::text(path)?;
    if !is_jsonl(path) {
        return Ok(vec![text]);
    }
    let mut found = Vec::new();
    for (line, number) in text.split('\n').zip(1..) {
        let line = line.trim_start_matches('\u{feff}');
        if line.trim().is_empty() {
            continue;
        }
        let broken = |problem: String| Error::BrokenLine { path: path.to_owned(), line: number, problem };
        let value = serde_json::from_str(line).map_err(|error| broken(describe(line, &error)))?;
        match fields {
            [] => strings(&value, &mut found),
            _ => found.push(joined(&value, fields).map_err(broken)?),
        }
    }
    Ok(found)
}

fn describe(line: &str, error: &serde_json::Error) -> String {
    // A list on one line is a record like any other.
    if line.starts_with('[') && error.is_eof() {
        return "a JSON array goes over several lines, expected JSON Lines: a record a line".to_owned();
    }
    format!("broken JSON ({error})")
}

/// Whether the name without the ending of a compressor is that of JSON Lines.
fn is_jsonl(path: &Path) -> bool {
    let ending = |path: &Path| path.extension().map(|ending| ending.to_string_lossy().into_owned());
    let inner = match ending(path).as_deref() {
        Some("gz" | "gzip" | "zst" | "zstd") => path.with_extension(""),
        _ => PathBuf::from(path),
    };
    matches!(ending(&inner).as_deref(), Some("jsonl" | "ndjson" | "json"))
}

fn joined(value: &Value, fields: &[String]) -> std::result::Result<String, String> {
    let mut texts = Vec::new();
    for field in fields {
        let value =
            value.get(field).ok_or_else(|| format!("there is no field `{field}`, which `fields` names"))?;
        strings(value, &mut texts);
    }
    Ok(texts.join("\n"))
}

fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(map) => map.values().for_each(|value| strings(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::drop_of;
    use super::*;

    fn load(files: &[(&str, &str)], n: usize, fields: &[&str]) -> Result<EvalNgrams> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("writable");
        }
        let paths = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        let fields = fields.iter().map(|&field| field.to_owned()).collect();
        EvalNgrams::load(&Decontaminate { paths, n, fields }, dir.path())
    }

    const THIRTEEN: &str = "Who was, in 1492, the first of all to see THIS new land?";

    #[test]
    fn runs_of_n_words_drop_and_shorter_ones_do_not() {
        let set = load(&[("set.txt", THIRTEEN)], 13, &[]).expect("one run");
        let found = drop_of(&set, &format!("Question\n- {}", THIRTEEN.replace(' ', "  ").to_uppercase()));
        assert_eq!(found, Some("who was in 1492 the first of all to see this new land".into()));
        assert_eq!(drop_of(&set, &THIRTEEN.replace("land", "")), None);
        assert_eq!(drop_of(&set, &THIRTEEN.replace("1492", "1493")), None);
        let error = load(&[("set.txt", THIRTEEN)], 14, &[]).expect_err("too short").to_string();
        assert!(error.contains("set.txt: no text has 14 words") && error.contains("lower `n`"), "{error}");
    }

    #[test]
    fn the_first_hit_of_the_document_is_shown() {
        let set = load(&[("set.txt", "a b c d"), ("more.txt", "x y")], 2, &[]).expect("runs");
        assert_eq!(drop_of(&set, "b a; Y x c, D a b"), Some("c d".into()));
    }

    #[test]
    fn json_lines_are_texts_of_their_own_or_joined() {
        let lines = "\u{feff}{\"q\": \"one two\", \"n\": 3, \"a\": [\"three\", {\"b\": \"four five\"}]}\n\n";
        let apart = load(&[("set.jsonl", lines)], 2, &[]).expect("runs");
        assert_eq!(drop_of(&apart, "two three four"), None);
        assert_eq!(drop_of(&apart, "four five"), Some("four five".into()));
        let joined = load(&[("set.jsonl", lines)], 3, &["q", "a"]).expect("runs");
        assert_eq!(drop_of(&joined, "one two three"), Some("one two three".into()));
        let error = load(&[("set.jsonl", lines)], 2, &["x"]).expect_err("absent").to_string();
        assert!(error.contains("set.jsonl:1: there is no field `x`"), "{error}");
        let error = load(&[("set.jsonl", "{")], 2, &[]).expect_err("broken").to_string();
        assert!(error.contains("set.jsonl:1: broken JSON"), "{error}");
    }

    #[test]
    fn names_say_what_files_hold() {
        for (name, lines) in [("a.jsonl", true), ("a.jsonl.gz", true), ("a.txt.zst", false), ("a", false)] {
            assert_eq!(is_jsonl(Path::new(name)), lines, "{name}");
        }
    }
}
