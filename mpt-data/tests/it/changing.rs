//! Inputs that change while they are read: the work fails and names the file, and nothing made of it is kept.

use std::fs;
use std::path::PathBuf;

use mpt_data::interop::{ExportFormat, ExportOptions, ImportOptions, export, import};
use mpt_data::{Error, NoProgress, Phase, Progress, plan_units, prepare, prepare_unit};

use crate::corpus::Corpus;

/// Changes a file when a stage begins, by which time it was hashed.
struct ChangeAt {
    stage: Phase,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Progress for ChangeAt {
    fn start(&mut self, stage: Phase, _: u64) {
        if stage == self.stage {
            fs::write(&self.path, &self.bytes).expect("writable");
        }
    }
    fn advance(&mut self, _: u64) {}
    fn finish(&mut self) {}
}

fn is_changed(error: &Error, name: &str) -> bool {
    matches!(error, Error::InputChanged { path } if path.ends_with(name))
}

/// Other content for each format: more text, the same length, another file altogether.
fn other(corpus: &Corpus, name: &str) -> Vec<u8> {
    let bytes = fs::read(corpus.path(name)).expect("readable");
    match name {
        "web/a.jsonl" => [&bytes[..], b"{\"text\": \"one more line\"}\n"].concat(),
        "books/05.txt" => bytes.iter().map(|byte| byte.to_ascii_uppercase()).collect(),
        // Nothing that is read of the file is different, but it is another file.
        "code/part.parquet" => {
            let mut bytes = bytes;
            let at = bytes.windows(6).position(|text| text == b"c\x00\x00\x00go").unwrap_or(bytes.len() - 40);
            bytes[at] ^= 1;
            bytes
        }
        _ => unreachable!("a file of the corpus"),
    }
}

#[test]
fn a_build_fails_by_name_and_continues_with_what_is_there() {
    for name in ["web/a.jsonl", "books/05.txt"] {
        let corpus = Corpus::new();
        let (run, tokenizer) = (corpus.run(&[]).expect("sound"), corpus.tokenizer());
        let mut change =
            ChangeAt { stage: Phase::Tokenize, path: corpus.path(name), bytes: other(&corpus, name) };
        let error = prepare(&run, &tokenizer, &mut change).expect_err("changed");
        assert!(is_changed(&error, name), "{error}");
        let manifest = prepare(&run, &tokenizer, &mut NoProgress).expect("built from what is there now");
        fs::remove_dir_all(&run.out).expect("removable");
        let fresh = prepare(&run, &tokenizer, &mut NoProgress).expect("built");
        assert_eq!(manifest.root(), fresh.root(), "{name}: nothing of the first build was taken over");
    }
}

#[test]
fn a_parquet_file_that_changes_is_named_too() {
    let corpus = Corpus::new();
    let name = "code/part.parquet";
    let (run, tokenizer) = (corpus.run(&[]).expect("sound"), corpus.tokenizer());
    let path = corpus.path(name);
    let mut change = ChangeAt { stage: Phase::Tokenize, path, bytes: other(&corpus, name) };
    let error = prepare(&run, &tokenizer, &mut change).expect_err("changed");
    let is_named = is_changed(&error, name) || error.to_string().contains("part.parquet: not a sound");
    assert!(is_named, "{error}");
}

#[test]
fn a_unit_of_other_content_is_not_cached() {
    let corpus = Corpus::new();
    let (run, tokenizer) = (corpus.run(&[]).expect("sound"), corpus.tokenizer());
    let units = plan_units(&run, &tokenizer, None, &mut NoProgress).expect("planned");
    let books = units.iter().find(|unit| unit.source == "books").expect("planned");
    fs::write(corpus.path("books/05.txt"), other(&corpus, "books/05.txt")).expect("writable");
    let error = prepare_unit(&run, &tokenizer, None, &books.id, &mut NoProgress).expect_err("changed");
    assert!(is_changed(&error, "books/05.txt"), "{error}");
    assert!(!corpus.path("out/.units").join(&books.id).exists());
}

#[test]
fn a_conversion_fails_by_name_and_leaves_nothing() {
    let corpus = Corpus::new();
    let ours = corpus.build(&[]);
    let options = ExportOptions { target: ExportFormat::Megatron, token_dtype: None };
    export(&ours, &corpus.path("megatron"), &options, &mut NoProgress).expect("exported");
    let path = corpus.path("megatron/web/tokens.bin");
    let mut bytes = fs::read(&path).expect("readable");
    bytes.swap(0, 2);
    bytes.swap(1, 3);
    let mut change = ChangeAt { stage: Phase::Convert, path, bytes };
    let (input, out) = (corpus.path("megatron"), corpus.path("back"));
    let options = ImportOptions::default();
    let error = import(&input, &out, &corpus.tokenizer(), &options, &mut change).expect_err("changed");
    assert!(is_changed(&error, "web/tokens.bin"), "{error}");
    assert!(!out.exists());
    import(&input, &out, &corpus.tokenizer(), &options, &mut NoProgress).expect("unchanged");
}
