//! kill -9 during data preparation and training: after a rerun the bytes are those of an uninterrupted run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::job::Job;
use crate::mpt;

/// Number of times that each command is killed.
const KILLS: usize = 9;

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

/// State after a kill: names and sizes of the files below `out`, and of files beside it that are named after it.
fn state(dir: &Path, out: &str) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        // a file that is removed meanwhile is a change as well
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, size) = (entry.path(), entry.metadata().map_or(0, |metadata| metadata.len()));
            if folder == dir && !entry.file_name().to_string_lossy().contains(out) {
                continue;
            }
            if path.is_dir() {
                folders.push(path.clone());
            }
            found.push((path, size));
        }
    }
    found.sort();
    found
}

/// Starts a command and kills it after `changes` changes of the state of `out`. Returns the state, or `None` if it
/// ended before.
fn kill_after(dir: &Path, args: &[&str], out: &str, changes: usize) -> Option<Vec<(PathBuf, u64)>> {
    let mut last = state(dir, out);
    let mut child = mpt()
        .current_dir(dir)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut seen = 0;
    while seen < changes {
        if child.try_wait().expect("waitable").is_some() {
            return None;
        }
        let now = state(dir, out);
        seen += usize::from(now != last);
        last = now;
    }
    child.kill().expect("killable");
    let status = child.wait().expect("ends");
    status.code().is_none().then(|| state(dir, out))
}

/// Runs a command to its end with repeated kills, each some changes later than the one before. Most kills hit the
/// running command, and they leave different states.
fn run_with_kills(dir: &Path, args: &[&str], out: &str, later: usize) {
    let left: Vec<_> = (0..KILLS).filter_map(|kill| kill_after(dir, args, out, 1 + kill * later)).collect();
    let states: BTreeSet<_> = left.iter().collect();
    assert!(3 * left.len() >= 2 * KILLS, "{} of {KILLS} kills found {args:?} running", left.len());
    assert!(3 * states.len() >= 2 * left.len(), "{} kills left {} states", left.len(), states.len());
    let status =
        mpt().current_dir(dir).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("ends");
    assert!(status.success(), "{args:?}");
}

#[test]
fn killing_a_data_build_changes_no_byte() {
    let job = Job::new();
    job.done(&["data", "build", "mix.toml", "--out", "whole"]);
    run_with_kills(job.dir(), &["data", "build", "mix.toml", "--out", "killed"], "killed", 1);
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
    let built = job.json(&["data", "build", "mix.toml", "--out", "whole"]);
    let dropped = |stage: usize| built["dedup"][stage]["sources"][0]["dropped"].as_u64();
    assert_eq!((dropped(0), dropped(1)), (Some(200), Some(200)), "{built}");
    run_with_kills(job.dir(), &["data", "build", "mix.toml", "--out", "killed"], "killed", 1);
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
    job.done(&args("run_dir=whole"));
    run_with_kills(job.dir(), &args("run_dir=killed"), "killed", 5);
    let last = |run: &str| tree(&job.path(run).join("checkpoints/step-00000060"));
    assert!(last("killed") == last("whole"));
}
