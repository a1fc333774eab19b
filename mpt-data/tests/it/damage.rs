//! Damaged data: every changed byte is found, and named.

use std::fs;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use mpt_data::{Error, Loader, LoaderConfig, Manifest, Split};

use parquet::file::reader::{FileReader, SerializedFileReader};

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
        for at in places(&(0..bytes.len())) {
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

/// The first and the last place of a range, and some between.
fn places(range: &Range<usize>) -> impl Iterator<Item = usize> {
    let last = range.len() - 1;
    let (start, all) = (range.start, 0..=last.min(20));
    let steps = *all.end().max(&1);
    all.map(move |step| start + last * step / steps)
}

/// The parts of a shard by name: magics, each page of each column with its header, indexes, footer and its length.
fn regions(shard: &[u8]) -> Vec<(String, Range<usize>)> {
    let reader = SerializedFileReader::new(Bytes::copy_from_slice(shard)).expect("sound");
    let end = shard.len();
    let length = u32::from_le_bytes(shard[end - 8..end - 4].try_into().expect("four bytes")) as usize;
    let footer = end - 8 - length;
    let mut regions = vec![("magic".to_owned(), 0..4)];
    for (group, row_group) in reader.metadata().row_groups().iter().enumerate() {
        for column in row_group.columns() {
            let (start, len) = column.byte_range();
            let chunk = start as usize..(start + len) as usize;
            regions.push((format!("row group {group}, column {}", column.column_path().string()), chunk));
        }
    }
    let chunks_end = regions.iter().map(|(_, range)| range.end).max().expect("columns");
    if chunks_end < footer {
        regions.push(("indexes".to_owned(), chunks_end..footer));
    }
    regions.push(("footer with its statistics".to_owned(), footer..end - 8));
    regions.push(("length of the footer".to_owned(), end - 8..end - 4));
    regions.push(("last magic".to_owned(), end - 4..end));
    regions
}

/// Every token of the held-out data, or what is wrong with it.
fn held_out(manifest: &Manifest) -> mpt_data::Result<Vec<u32>> {
    let loader = Loader::new(manifest, LoaderConfig::new(manifest, Split::Eval), None)?;
    let batches: Vec<_> = loader.collect::<mpt_data::Result<_>>()?;
    Ok(batches.into_iter().flat_map(|batch| batch.tokens).collect())
}

/// `verify` finds a flip in every part of a shard and names the file; reading it is refused or gives the tokens that were
/// written, never others.
#[test]
fn a_flipped_byte_in_any_part_of_a_shard_is_found() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    let expected = held_out(&manifest).expect("sound");
    let name = Path::new("eval/web/00000.parquet");
    let path = corpus.path("out").join(name);
    let sound = fs::read(&path).expect("readable");
    let regions = regions(&sound);
    let covered: usize = regions.iter().map(|(_, range)| range.len()).sum();
    assert_eq!(covered, sound.len(), "every byte is in one part: {regions:?}");
    assert!(regions.iter().any(|(part, _)| part.ends_with("column tokens")), "{regions:?}");
    for (part, range) in &regions {
        let mut refused = 0;
        for at in places(range) {
            let mut changed = sound.clone();
            changed[at] ^= 0x41;
            fs::write(&path, &changed).expect("writable");
            assert_eq!(damaged(&manifest)[0].path, name, "{part}: byte {at}");
            match held_out(&manifest) {
                Ok(found) => assert!(found == expected, "{part}: byte {at} gave other tokens"),
                Err(error) => {
                    assert!(
                        error.to_string().contains("eval/web/00000.parquet"),
                        "{part}: byte {at}: {error}"
                    );
                    refused += 1;
                }
            }
        }
        assert!(refused > 0 || !part.ends_with("column tokens"), "no flip in {part} is felt by a reader");
    }
    fs::write(&path, &sound).expect("writable");
    assert_eq!(held_out(&manifest).expect("restored"), expected);
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
