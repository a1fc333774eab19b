//! `mpt data convert`: inputs, outputs, messages and exit codes.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::run_in;

/// Folder with a tokenizer and `in/web/tokens.{idx,bin}`: 40 documents of 5 tokens, the last of each 0.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| dir.path().join(name);
    fs::write(path("text.txt"), "the cat sat on the mat and the dog sat on the cat\n".repeat(20))
        .expect("writable");
    let train =
        ["tokenizer", "train", "text.txt", "--vocab-size", "300", "--min-frequency", "1", "--out", "t.json"];
    assert_eq!(run_in(dir.path(), &train).code, 0);
    fs::create_dir_all(path("in/web")).expect("creatable");
    let ids = (0..40u16).flat_map(|document| [2 + document, 60, 61, 62, 0]);
    fs::write(path("in/web/tokens.bin"), ids.flat_map(u16::to_le_bytes).collect::<Vec<_>>())
        .expect("writable");
    let mut idx = b"MMIDIDX\0\0".to_vec();
    idx.extend(1u64.to_le_bytes());
    idx.push(8);
    [40u64, 41].iter().for_each(|count| idx.extend(count.to_le_bytes()));
    (0..40).for_each(|_| idx.extend(5i32.to_le_bytes()));
    (0..40).for_each(|document: i64| idx.extend((10 * document).to_le_bytes()));
    (0..41i64).for_each(|entry| idx.extend(entry.to_le_bytes()));
    fs::write(path("in/web/tokens.idx"), idx).expect("writable");
    dir
}

fn json(dir: &Path, args: &[&str]) -> Value {
    let run = run_in(dir, &[args, &["--json"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).expect("one document")
}

#[test]
fn data_goes_from_megatron_to_ours_to_mds_and_back() {
    let dir = folder();
    let dir = dir.path();
    let to_ours =
        ["data", "convert", "in", "ours", "--to", "parquet", "--tokenizer", "t.json", "--seq-len", "8"];
    let done = json(dir, &to_ours);
    assert_eq!((&done["train_tokens"], &done["document_starts"]), (&200.into(), &"index".into()));
    assert_eq!(
        (&done["sources"][0]["source"], &done["sources"][0]["documents"]),
        (&"web".into(), &40.into())
    );
    assert_eq!(run_in(dir, &["data", "verify", "ours"]).code, 0);
    let cat = run_in(dir, &["data", "cat", "ours", "--count", "2"]);
    let sample: Value = serde_json::from_str(cat.stdout.lines().next().expect("a line")).expect("JSON");
    let (ids, docs) = (&sample["ids"], sample["doc_ids"].as_array().expect("a list"));
    for at in 1..8 {
        assert_eq!(docs[at] != docs[at - 1], ids[at - 1] == 0, "documents begin after each 0");
    }
    let done =
        json(dir, &["data", "convert", "ours", "mds", "--to", "mds", "--compression", "gz", "--hash", "md5"]);
    assert_eq!((&done["sources"][0]["samples"], &done["token_dtype"]), (&25.into(), &"uint16".into()));
    assert!(dir.join("mds/web/shard.00000.mds.gz").is_file() && dir.join("mds/index.json").is_file());
    let back = ["data", "convert", "mds", "back", "--to", "parquet", "--tokenizer", "t.json", "--eos", "0"];
    let run = run_in(dir, &back);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("they are taken to begin after each <|endoftext|> (id 0)"), "{}", run.stdout);
    let again = run_in(dir, &back);
    assert!(again.code == 0 && again.stderr.contains("already built"), "{}", again.stderr);
    json(dir, &["data", "convert", "back", "megatron", "--to", "megatron"]);
    for file in ["tokens.bin", "tokens.idx"] {
        let read = |folder: &str| fs::read(dir.join(folder).join("web").join(file)).expect("there");
        assert_eq!(read("in"), read("megatron"), "{file}");
    }
}

#[test]
fn what_cannot_be_converted_says_why() {
    let dir = folder();
    let dir = dir.path();
    let convert = |args: &[&str], code: i32, parts: &[&str]| {
        let run = run_in(dir, &[&["data", "convert"], args].concat());
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        parts.iter().for_each(|part| assert!(run.stderr.contains(part), "{args:?}: {}", run.stderr));
    };
    convert(&["in", "x", "--to", "parquet"], 2, &["--tokenizer is missing"]);
    convert(&["in", "x", "--to", "mds"], 2, &["in: is no folder made by", "--to parquet first"]);
    let to_ours = ["in", "x", "--to", "parquet", "--tokenizer", "t.json"];
    let with = |more: &[&'static str]| [&to_ours[..], more].concat();
    convert(&with(&["--compression", "zstd"]), 2, &["--compression has no meaning to Parquet"]);
    convert(&with(&["--eos", "no such"]), 2, &["--eos no such: the tokenizer has no such token"]);
    convert(&with(&["--seq-len", "1000"]), 3, &["source `web` has 200 tokens for train", "lower `seq_len`"]);
    convert(
        &["t.json", "x", "--to", "parquet", "--tokenizer", "t.json"],
        3,
        &["t.json: is neither a folder"],
    );
    fs::write(dir.join("in/web/tokens.bin"), [0; 30]).expect("writable");
    convert(
        &with(&["--seq-len", "8"]),
        3,
        &["tokens.idx: sequence 3 is 5 tokens from byte 30 on", "has 30 bytes"],
    );
    assert!(!dir.join("x").exists());
}
