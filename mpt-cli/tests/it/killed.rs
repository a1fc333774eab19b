//! kill -9 during data preparation and training: after a rerun the bytes are those of an uninterrupted run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::job::Job;
use crate::mpt;

/// Files below a folder, without those that hold times.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("listable") {
        let path = entry.expect("listable").path();
        let name = PathBuf::from(path.file_name().expect("named"));
        if path.is_dir() {
            files.extend(tree(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else if name != Path::new("metrics.jsonl") {
            files.insert(name, std::fs::read(&path).expect("readable"));
        }
    }
    files
}

/// Runs a command to its end, killed at moments spread over its duration. Returns the number of kills.
fn run_with_kills(dir: &Path, args: &[&str], kills: u32, whole: Duration) -> u32 {
    let mut killed = 0;
    for kill in 1..=kills {
        let mut child = mpt()
            .current_dir(dir)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        std::thread::sleep(whole * kill / (kills + 1));
        if child.try_wait().expect("waitable").is_none() {
            child.kill().expect("killable");
            killed += 1;
        }
        child.wait().expect("ends");
    }
    let status =
        mpt().current_dir(dir).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("ends");
    assert!(status.success(), "{args:?}");
    killed
}

fn timed(job: &Job, args: &[&str]) -> Duration {
    let began = Instant::now();
    job.done(args);
    began.elapsed()
}

#[test]
fn killing_a_data_build_changes_no_byte() {
    let job = Job::new();
    let whole = timed(&job, &["data", "build", "mix.toml", "--out", "whole"]);
    let killed = run_with_kills(job.dir(), &["data", "build", "mix.toml", "--out", "killed"], 6, whole);
    assert!(killed > 0);
    assert!(tree(&job.path("killed")) == tree(&job.path("whole")));
}

#[test]
fn killing_a_build_that_drops_copies_changes_no_byte() {
    let job = Job::new();
    // Letters alone: to MinHash all numbers are similar.
    let word = |number: usize| [1, 20, 400, 8000].map(|place| char::from(b'a' + (number / place % 20) as u8));
    let words = |i: usize| (0..60).map(move |at| String::from_iter(word((i * 7919 + at) * (at + 11))));
    let text = |i: usize| words(i).collect::<Vec<_>>().join(" ");
    // One of ten is a copy of the one before, and one is nearly so.
    let line = |i: usize| match i % 10 {
        8 => text(i - 1),
        9 => format!("{} and more", text(i - 2)),
        _ => text(i),
    };
    let lines = (0..2000).map(|i| format!("{{\"id\": \"v{i}\", \"text\": \"{}\"}}\n", line(i)));
    job.write("verse.jsonl", &lines.collect::<String>());
    let mix = std::fs::read_to_string(job.path("mix.toml")).expect("readable");
    job.write("mix.toml", &format!("dedup = [\"exact\", \"minhash\"]\n{mix}"));
    let began = Instant::now();
    let built = job.json(&["data", "build", "mix.toml", "--out", "whole"]);
    let whole = began.elapsed();
    let dropped = |stage: usize| built["dedup"][stage]["sources"][0]["dropped"].as_u64();
    assert_eq!((dropped(0), dropped(1)), (Some(200), Some(200)), "{built}");
    let killed = run_with_kills(job.dir(), &["data", "build", "mix.toml", "--out", "killed"], 6, whole);
    assert!(killed > 0);
    assert!(tree(&job.path("killed")) == tree(&job.path("whole")));
}

#[test]
fn killing_a_training_run_changes_no_byte() {
    let job = Job::new();
    job.done(&["data", "build", "mix.toml", "--out", "data"]);
    let settings = ["--set", "run_dir=whole", "--set", "train.steps=60", "--set", "checkpoint.every_steps=2"];
    let args = |run_dir: &'static str| {
        [&["train", "run.toml"][..], &settings[..1], &[run_dir], &settings[2..]].concat()
    };
    let whole = timed(&job, &args("run_dir=whole"));
    let killed = run_with_kills(job.dir(), &args("run_dir=killed"), 6, whole);
    assert!(killed > 0);
    let last = |run: &str| tree(&job.path(run).join("checkpoints/step-00000060"));
    assert!(last("killed") == last("whole"));
}
