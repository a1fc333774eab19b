//! Bad input: the error names the file, the line, the key, and what to do.

use crate::corpus::{Corpus, words};

#[test]
fn a_broken_line_is_named_by_file_and_line() {
    let corpus = Corpus::new();
    corpus.write("web/a.jsonl", "{\"text\": \"one two\"}\n\n{\"text\": \"three\n");
    let error = corpus.build_error(&[]);
    assert!(error.contains("web/a.jsonl:3: broken JSON at column "), "{error}");
    corpus.write("web/a.jsonl", "{\"txt\": \"one two\"}\n");
    assert!(corpus.build_error(&[]).contains("web/a.jsonl:1: the object has no field `text`"));
}

#[test]
fn sources_that_cannot_be_used_are_named() {
    let corpus = Corpus::new();
    let error = corpus.build_error(&[("web/*", "nowhere/*")]);
    assert!(error.contains("source `web`: no file matches") && error.contains("nowhere/*"), "{error}");
    let error = corpus.build_error(&[("value = 20", "value = 1000")]);
    assert!(
        error.contains(
            "source `web` is empty: of 270 documents read none is left for training (min_words 270)"
        ),
        "{error}"
    );
    let error = corpus.build_error(&[("field = \"lang\"", "field = \"language\"")]);
    assert!(error.contains("part.parquet: there is no column `language`, did you mean `lang`?"), "{error}");
    let filter = "filters = [{ kind = \"column\", field = \"licence\", none_of = [\"mit\"] }]";
    let error = corpus.build_error(&[("filters = [{ kind = \"min_words\", value = 20 }]", filter)]);
    assert!(error.contains("source `web`: no document has the field `licence`"), "{error}");
    let error = corpus.build_error(&[("seq_len = 32", "seq_len = 12000")]);
    assert!(error.contains("source `books` has ") || error.contains("source `code` has "), "{error}");
    assert!(error.contains("less than one sequence of 12000; lower `seq_len`"), "{error}");
}

#[test]
fn damaged_inputs_are_named() {
    let corpus = Corpus::new();
    let whole = std::fs::read(corpus.path("web/b.jsonl.gz")).expect("readable");
    corpus.write_bytes("web/b.jsonl.gz", &whole[..whole.len() / 2]);
    assert!(corpus.build_error(&[]).contains("web/b.jsonl.gz: the compressed data ends too early"));
    corpus.write_bytes("web/b.jsonl.gz", b"no gzip at all");
    assert!(corpus.build_error(&[]).contains("web/b.jsonl.gz: is no gzip data, though its name says so"));
    corpus.write_bytes("web/b.jsonl.gz", &whole);
    corpus.write_bytes("code/part.parquet", b"PAR1");
    assert!(corpus.build_error(&[]).contains("code/part.parquet: not a sound Parquet file"));
    let corpus = Corpus::new();
    corpus.write_bytes("books/00.txt", b"fine until \xff here");
    assert!(corpus.build_error(&[]).contains("books/00.txt: byte 11 is not UTF-8"));
}

#[test]
fn unknown_special_tokens_are_named() {
    let error = Corpus::new().build_error(&[("seed = 3", "seed = 3\neos = \"</s>\"")]);
    assert!(error.contains("`eos` is \"</s>\", which the tokenizer does not have"), "{error}");
}

#[test]
fn a_huge_document_is_refused_by_name() {
    let corpus = Corpus::new();
    corpus.write("books/00.txt", &words(1, 10).repeat(1_400_000));
    let error = corpus.build_error(&[]);
    assert!(
        error.contains("books/00.txt: the document has more than") || error.contains("split it"),
        "{error}"
    );
}

#[test]
fn groups_that_are_too_small_are_refused_before_anything_is_read() {
    let corpus = Corpus::new();
    let stratified = |group: u64| format!("seed = 3\nbatching = \"stratified\"\nbatch_group = {group}");
    corpus.write("web/a.jsonl", "no JSON");
    let error = corpus.build_error(&[("seed = 3", &stratified(2))]);
    assert!(
        error.contains("mix.toml: `batch_group` is 2, expected groups in which every source has a sample"),
        "{error}"
    );
    assert!(corpus.build_error(&[("seed = 3", &stratified(10))]).contains("web/a.jsonl:1: "));
}
