//! `mpt data plan`, `trace`, `simulate`, `cat` and `bench data`: inspection of the sample order.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::run_in;

/// Folder with two sources of short texts, and the data built from them in `data`.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let text = |source: &str| {
        let line = |i: usize| {
            format!(
                "{{\"id\": \"{source}{i}\", \"text\": \"the {source} {i} sat on the mat and the dog {i}\"}}\n"
            )
        };
        (0..60).map(line).collect::<String>()
    };
    let path = |name: &str| dir.path().join(name);
    ["a", "b"]
        .iter()
        .for_each(|name| fs::write(path(&format!("{name}.jsonl")), text(name)).expect("writable"));
    fs::write(path("text.txt"), text("a") + &text("b")).expect("writable");
    let train =
        ["tokenizer", "train", "text.txt", "--vocab-size", "300", "--min-frequency", "1", "--out", "t.json"];
    assert_eq!(run_in(dir.path(), &train).code, 0);
    let source = |name: &str| {
        format!(
            "[[sources]]\nname = \"{name}\"\nproportion = 0.5\npaths = [\"{name}.jsonl\"]\nformat = \"jsonl\"\n"
        )
    };
    let mix =
        format!("tokenizer = \"t.json\"\nseq_len = 16\neval_fraction = 0.0\n{}{}", source("a"), source("b"));
    fs::write(path("mix.toml"), mix).expect("writable");
    let built = run_in(dir.path(), &["data", "build", "mix.toml", "--out", "data"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    dir
}

fn json(dir: &Path, args: &[&str]) -> Value {
    let run = run_in(dir, &[args, &["--json"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).expect("one document")
}

#[test]
fn the_card_of_mpt_30b_is_planned_without_data() {
    let runs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/runs"));
    let run = run_in(runs, &["data", "plan", "mpt-30b-mix.toml", "--tokens", "1e12"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let shown: Vec<_> =
        run.stdout.lines().skip(1).map(|line| line.split_whitespace().rev().nth(1).unwrap_or("")).collect();
    assert_eq!(
        shown,
        ["0.139", "2.98", "0.097", "0.216", "8.21", "0.420", "0.674", "1.15", "0.676", "0.682"]
    );
    let found = json(runs, &["data", "plan", "mpt-30b-mix.toml", "--tokens", "1e12"]);
    assert_eq!(found["token_budget"], 1_000_000_000_000u64);
    let found = json(runs, &["data", "simulate", "mpt-30b-mix.toml", "--samples", "2000"]);
    assert_eq!((&found["tokens"], &found["row_mode"]["requests"]), (&(2000 * 2048).into(), &4000.into()));
    assert!(
        run_in(runs, &["data", "simulate", "mpt-30b-mix.toml", "--samples", "2000"])
            .stdout
            .contains("of a true shuffle")
    );
}

#[test]
fn a_batch_is_traced_to_its_documents() {
    let dir = folder();
    let samples =
        json(dir.path(), &["data", "trace", "data", "--step", "3", "--batch", "4", "--shuffle", "windowed"]);
    let samples = samples.as_array().expect("a list");
    let indexes: Vec<_> = samples.iter().map(|sample| sample["index"].as_u64().expect("a number")).collect();
    assert_eq!(indexes, [8, 9, 10, 11]);
    let cat =
        run_in(dir.path(), &["data", "cat", "data", "--start", "8", "--count", "4", "--shuffle", "windowed"]);
    for (line, traced) in cat.stdout.lines().zip(samples) {
        let sample: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(
            (&sample["source"], &sample["doc_ids"][0]),
            (&traced["source"], &traced["documents"][0]["ordinal"])
        );
        let id = traced["documents"][0]["id"].as_str().expect("an id");
        assert!(id.starts_with(traced["source"].as_str().expect("a name")), "{traced}");
    }
    let run = "[model]\nd_model = 8\nn_heads = 1\nn_layers = 1\nvocab_size = 300\n[data]\ndir = \"data\"\nshuffle = \"windowed\"\n\
               [optimizer]\nkind = \"lion\"\nlr = 1e-3\n[train]\nsteps = 2\nbatch_size = 4\n";
    fs::write(dir.path().join("run.toml"), run).expect("writable");
    let of_run =
        json(dir.path(), &["data", "trace", "data", "--step", "3", "--batch", "4", "--run", "run.toml"]);
    assert_eq!(of_run.as_array(), Some(samples));
    let text = run_in(dir.path(), &["data", "trace", "data", "--sample", "8"]).stdout;
    assert!(text.contains("from token") && text.contains("train/"), "{text}");
    assert_eq!(run_in(dir.path(), &["data", "trace", "data"]).code, 2);
    let run = run_in(dir.path(), &["data", "cat", "data", "--sampling", "idd"]);
    assert!(run.code == 2 && run.stderr.contains("expected `exact` or `iid`"), "{}", run.stderr);
    let run = run_in(dir.path(), &["data", "cat", "data", "--shuffle-window", "3"]);
    assert!(run.code == 2 && run.stderr.contains("`shuffle_window` is set"), "{}", run.stderr);
}

#[test]
fn the_loader_is_measured() {
    let dir = folder();
    let found = json(dir.path(), &["bench", "data", "data", "--batch", "8", "--batches", "5"]);
    for key in ["tokens_per_cpu_s", "tokens_per_s", "samples_per_s", "gb_per_s", "first_batch_seconds"] {
        assert!(found[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {found}");
    }
    assert_eq!((&found["seq_len"], found["reps"].as_array().map(Vec::len)), (&16.into(), Some(3)));
    let text = run_in(dir.path(), &["bench", "data", "data", "--batch", "8", "--batches", "5"]).stdout;
    assert!(text.contains("tokens/CPU-s") && text.contains("8 x 16, 5 batches"), "{text}");
}
