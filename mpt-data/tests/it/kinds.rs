//! Files that are not what their source says: each is named as what it is, and what marks a text is no part of it.

use mpt_data::Split;

use crate::corpus::{Corpus, words};
use crate::dirty::ledger;

const SKIP: (&str, &str) = ("format = \"jsonl\"", "format = \"jsonl\"\non_bad_line = \"skip\"");

#[test]
fn files_of_another_kind_are_named_whatever_is_skipped() {
    let corpus = Corpus::new();
    let gzip = std::fs::read(corpus.path("web/b.jsonl.gz")).expect("readable");
    let zstd = std::fs::read(corpus.path("web/c.jsonl.zst")).expect("readable");
    let utf16: Vec<u8> = "\u{feff}{\"text\": \"a\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let array = format!("[{{\"text\": \"{}\"}},\n{{\"text\": \"b\"}}]\n", words(1, 30));
    for (bytes, expected) in [
        (gzip, "web/x.jsonl: is gzip data; give it the ending .gz"),
        (zstd, "web/x.jsonl: is zstd data; give it the ending .zst"),
        (b"BZh91AY&SY\x01\x02\x03".to_vec(), "web/x.jsonl: is bzip2 data"),
        (utf16, "web/x.jsonl: is UTF-16 text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n".to_vec(), "git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html><body>404</body></html>\n".to_vec(), "is an HTML or XML page"),
        (array.clone().into_bytes(), "web/x.jsonl: is not JSON Lines: it begins with `[`"),
        (format!("\u{feff} \n{array}").into_bytes(), "web/x.jsonl: is not JSON Lines: it begins with `[`"),
    ] {
        corpus.write_bytes("web/x.jsonl", &bytes);
        for changes in [&[][..], &[SKIP]] {
            let error = corpus.build_error(changes);
            assert!(error.contains(expected), "{error}");
        }
    }
}

#[test]
fn byte_order_marks_are_no_text() {
    let corpus = Corpus::new();
    let plain = corpus.build(&[]);
    std::fs::remove_dir_all(corpus.path("out")).expect("removable");
    for name in ["books/00.txt", "web/a.jsonl"] {
        let text = std::fs::read_to_string(corpus.path(name)).expect("readable");
        corpus.write(name, &format!("\u{feff}{text}"));
    }
    let marked = corpus.build(&[]);
    let tokens = |manifest: &mpt_data::Manifest| {
        manifest.sources().iter().map(|source| source.tokens).collect::<Vec<_>>()
    };
    assert_eq!(tokens(&plain), tokens(&marked));
    let shard = |manifest: &mpt_data::Manifest| manifest.sources()[1].split(Split::Train).rows;
    assert_eq!(shard(&plain), shard(&marked));
}

#[test]
fn a_mark_in_mid_file_is_named() {
    let corpus = Corpus::new();
    let line = format!("{{\"id\": \"x\", \"text\": \"{}\"}}\n", words(9, 40));
    corpus.write("web/joined.jsonl", &format!("\u{feff}{line}\u{feff}{}", line.replace("\"x\"", "\"y\"")));
    let error = corpus.build_error(&[]);
    assert!(error.contains("web/joined.jsonl:2: begins with a byte-order mark"), "{error}");
    let rows = ledger(&corpus.build(&[SKIP]));
    assert!(rows.iter().any(|([id, ..], _)| id == "joined.jsonl:2"), "and it is in the ledger");
}

#[test]
fn unwanted_fields_lose_no_document() {
    let corpus = Corpus::new();
    let good = |id: usize, rest: &str| {
        format!("{{\"id\": {id}.0, \"text\": \"{}\", {rest}}}\n", words(700 + id, 40))
    };
    let lines: String = [r#""\ud800": 1"#, r#""score": NaN"#, r#""x": {"y": [Infinity, "\udc00"]}"#]
        .iter()
        .enumerate()
        .map(|(id, rest)| good(id, rest))
        .collect();
    corpus.write("web/python.jsonl", &lines);
    let before = Corpus::new().build(&[]).sources()[0].documents;
    let manifest = corpus.build(&[]);
    assert_eq!(manifest.sources()[0].documents, before + 3);
    assert!(!manifest.sources()[0].drops.contains_key("bad_line"));
}
