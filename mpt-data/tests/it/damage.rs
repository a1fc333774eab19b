//! Damaged data: every changed byte is found, and named.

use std::fs;

use mpt_data::{Error, Loader, LoaderConfig, Manifest, Split};

use crate::corpus::{Corpus, tree};

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
    let config =
        LoaderConfig { split: Split::Train, seq_len: 32, seed: 1, batch_size: 8, world_size: 1, rank: 0 };
    let error =
        Loader::new(&manifest, config, None).expect("lazy").next().expect("a batch").expect_err("damaged");
    assert!(error.to_string().starts_with("train/web/00000.parquet: has "), "{error}");
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
    let config =
        LoaderConfig { split: Split::Train, seq_len: 32, seed: 1, batch_size: 8, world_size: 1, rank: 0 };
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
        error
            .contains("manifest.json: there is no manifest here; expected a folder made by `mpt data build`"),
        "{error}"
    );
}
