//! Damaged data: every changed byte is found, and named.

use std::fs;

use mpt_data::{Error, Loader, LoaderConfig, Manifest, Split};

use crate::corpus::{Corpus, tree, words};

fn damaged(manifest: &Manifest) -> Vec<mpt_data::Damage> {
    match manifest.verify() {
        Err(Error::Damaged { files, .. }) => files,
        other => panic!("the damage was not found: {other:?}"),
    }
}

#[test]
fn a_flipped_byte_anywhere_is_found_and_its_file_named() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    for (name, bytes) in tree(&corpus.path("out")) {
        let path = corpus.path("out").join(&name);
        for at in [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).expect("writable");
            if name.ends_with("manifest.json") {
                assert!(Manifest::open(&corpus.path("out")).is_err(), "byte {at}");
            } else {
                assert_eq!(damaged(&manifest)[0].path, name, "byte {at}");
            }
        }
        fs::write(&path, &bytes).expect("writable");
    }
    manifest.verify().expect("all is restored");
}

#[test]
fn truncated_and_missing_files_are_named() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    let shard = corpus.path("out/train/web/00000.parquet");
    let bytes = fs::read(&shard).expect("readable");
    fs::write(&shard, &bytes[..bytes.len() / 2]).expect("writable");
    fs::remove_file(corpus.path("out/documents.parquet")).expect("removable");
    let problems: Vec<_> = damaged(&manifest).iter().map(ToString::to_string).collect();
    assert!(
        problems[0].starts_with("train/web/00000.parquet: has ") && problems[0].contains("truncated"),
        "{problems:?}"
    );
    assert!(problems[1].starts_with("documents.parquet: is missing"), "{problems:?}");
    let config = LoaderConfig { batch_size: 8, ..LoaderConfig::new(&manifest, Split::Train) };
    let error =
        Loader::new(&manifest, config, None).expect("lazy").next().expect("a batch").expect_err("damaged");
    assert!(error.to_string().starts_with("train/web/00000.parquet: has "), "{error}");
}

#[test]
fn a_shard_of_another_length_is_refused_while_training() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    let shard = corpus.path("out/train/web/00000.parquet");
    let bytes = fs::read(&shard).expect("readable");
    let whole = bytes.len();
    for (length, what) in [(0, "truncated"), (whole - 1, "truncated"), (whole + 1, "changed")] {
        fs::write(&shard, &[&bytes[..], b"!"].concat()[..length]).expect("writable");
        let config = LoaderConfig { batch_size: 8, ..LoaderConfig::new(&manifest, Split::Train) };
        let mut loader = Loader::new(&manifest, config, None).expect("lazy");
        let error = loader.find_map(|batch| batch.err()).expect("the shard comes up").to_string();
        let problem = format!(
            "has {length} bytes, expected {whole}: it was {what}; restore it, or remove it and run the same build again"
        );
        assert_eq!(error, format!("train/web/00000.parquet: {problem}"));
    }
}

#[test]
fn a_flipped_token_names_its_row_while_training() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    let shard = corpus.path("out/train/books/00000.parquet");
    let mut bytes = fs::read(&shard).expect("readable");
    let at = bytes.len() / 4;
    bytes[at] ^= 64;
    fs::write(&shard, bytes).expect("writable");
    let row = damaged(&manifest)[0].row.expect("a row");
    let config = LoaderConfig { batch_size: 8, ..LoaderConfig::new(&manifest, Split::Train) };
    let mut loader = Loader::new(&manifest, config, None).expect("lazy");
    let error = loader.find_map(|batch| batch.err()).expect("the row comes up").to_string();
    assert!(
        error.starts_with(&format!("train/books/00000.parquet: row {row}: does not match its checksum")),
        "{error}"
    );
}

#[test]
fn a_folder_without_a_manifest_says_why() {
    let corpus = Corpus::new();
    let error = Manifest::open(corpus.dir.path()).expect_err("no data").to_string();
    assert!(
        error.contains("manifest.json: there is no manifest here; expected a folder of prepared data"),
        "{error}"
    );
}

/// Two shards that are equally long and sound row by row: only whose documents they hold tells them apart.
#[test]
fn swapped_shards_are_found_while_training() {
    let corpus = Corpus::new();
    let text: String = (0..200).map(|i| format!("{{\"text\": \"{}\"}}\n", words(i, 40))).collect();
    corpus.write("web/a.jsonl", &text);
    corpus.write("books.jsonl", &text);
    let same = [
        ("paths = [\"web/*\"]", "paths = [\"web/a.jsonl\"]"),
        ("paths = [\"books/*.txt\"]\nformat = \"text\"", "paths = [\"books.jsonl\"]\nformat = \"jsonl\""),
        // The footer names the source: names of equal length keep files equally long.
        ("name = \"books\"", "name = \"wob\""),
        ("seed = 3", "seed = 3\ndedup = \"none\""),
        ("eval_fraction = 0.1", "eval_fraction = 0.0"),
    ];
    let manifest = corpus.build(&same);
    let path = |source: &str| corpus.path(&format!("out/train/{source}/00000.parquet"));
    let (web, books) = (fs::read(path("web")).expect("readable"), fs::read(path("wob")).expect("readable"));
    assert_eq!(web.len(), books.len());
    fs::write(path("web"), &books).expect("writable");
    fs::write(path("wob"), &web).expect("writable");
    let mut loader = Loader::new(&manifest, LoaderConfig::new(&manifest, Split::Train), None).expect("lazy");
    let error = loader.next().expect("a batch").expect_err("swapped").to_string();
    assert!(
        error.contains("/00000.parquet: row ") && error.contains("this is another shard's file"),
        "{error}"
    );
}
