//! Data commands under interference by other programs: truncated files, changing inputs, the same command twice.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::job::Job;
use crate::{mpt, run_in};

fn start(dir: &Path, args: &[&str]) -> Child {
    let mut command = mpt();
    command.current_dir(dir).args(args).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("starts")
}

/// Exit code and stderr of a process.
fn end(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("ends");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Files below a folder, with their bytes.
fn tree(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("listable") {
        let path = entry.expect("listable").path();
        let name = path.file_name().expect("named").to_string_lossy().into_owned();
        if path.is_dir() {
            files.extend(tree(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            files.push((name, std::fs::read(&path).expect("readable")));
        }
    }
    files.sort();
    files
}

/// A truncated mapped file ends every reader with a message and an exit code.
#[cfg(target_os = "linux")]
#[test]
fn a_shard_that_is_cut_short_under_a_running_train_is_named() {
    let job = Job::new();
    job.done(&["data", "build", "mix.toml", "--out", "data"]);
    for format in ["text", "json"] {
        job.done(&["data", "build", "mix.toml", "--out", "data"]);
        let run_dir = format!("run_dir={format}");
        let args = [
            "train",
            "run.toml",
            "--set",
            "train.steps=100000000",
            "--set",
            &run_dir,
            "--log-format",
            format,
        ];
        let child = start(job.dir(), &args);
        let metrics = job.path(format).join("metrics.jsonl");
        while std::fs::read_to_string(&metrics).unwrap_or_default().lines().count() < 2 {
            std::thread::sleep(Duration::from_millis(20));
        }
        for source in ["verse", "prose"] {
            let shard = job.path(&format!("data/train/{source}/00000.parquet"));
            let file = std::fs::File::options().write(true).open(shard).expect("there");
            file.set_len(0).expect("cut");
        }
        let (code, stderr) = end(child);
        assert_eq!(code, Some(4), "{stderr}");
        let last = stderr.lines().rev().find(|line| line.contains("00000.parquet")).expect(&stderr);
        assert!(last.contains("/00000.parquet: the file was cut short while it was being read"), "{stderr}");
        if format == "json" {
            let record: serde_json::Value = serde_json::from_str(last).expect("a record");
            assert_eq!((&record["level"], &record["exit_code"]), (&"error".into(), &4.into()));
        }
    }
}

/// Starts a command twice. Each succeeds or reports that it has to wait, and at least one succeeds.
fn twice(dir: &Path, args: &[&str]) {
    let both = [start(dir, args), start(dir, args)].map(end);
    assert!(both.iter().any(|(code, _)| *code == Some(0)), "{args:?}: {both:?}");
    for (code, stderr) in &both {
        let waits = stderr.contains("another process is writing here") && *code == Some(4);
        let is_there = ["this data is finished", "there is something already"];
        let is_done = is_there.iter().any(|there| stderr.contains(there)) && *code == Some(2);
        assert!(*code == Some(0) || waits || is_done, "{args:?}: {code:?} {stderr}");
    }
}

#[test]
fn two_processes_at_once_do_each_other_no_harm() {
    let job = Job::new();
    job.done(&["data", "build", "mix.toml", "--out", "one"]);
    let whole = tree(&job.path("one"));
    for round in 0..4 {
        let out = format!("built-{round}");
        twice(job.dir(), &["data", "build", "mix.toml", "--out", &out]);
        assert!(tree(&job.path(&out)) == whole, "round {round}");

        let out = format!("units-{round}");
        twice(job.dir(), &["data", "plan", "mix.toml", "--units", "--out", &out]);
        let units = job.json(&["data", "plan", "mix.toml", "--units", "--out", &out]);
        for unit in units["units"].as_array().expect("a list") {
            let id = unit["id"].as_str().expect("a name");
            twice(job.dir(), &["data", "unit", "mix.toml", id, "--out", &out]);
        }
        twice(job.dir(), &["data", "commit", "mix.toml", "--out", &out]);
        assert!(tree(&job.path(&out)) == whole, "round {round}");

        let out = format!("converted-{round}");
        twice(job.dir(), &["data", "convert", "one", &out, "--to", "mds"]);
        assert!(tree(&job.path(&out)) == tree(&job.path("converted-0")), "round {round}");
        assert!(!tree(&job.path(&out)).is_empty(), "round {round}");

        twice(job.dir(), &["data", "inspect", "one", "--html", "page.html"]);
        let page = std::fs::read_to_string(job.path("page.html")).expect("written");
        assert!(page.trim_end().ends_with("</html>"), "round {round}");
    }
}

#[test]
fn an_input_that_changes_under_a_build_is_named() {
    let job = Job::new();
    let units = job.json(&["data", "plan", "mix.toml", "--units", "--out", "data"]);
    let id = units["units"][0]["id"].as_str().expect("a name").to_owned();
    let text = std::fs::read_to_string(job.path("verse.jsonl")).expect("readable");
    job.write("verse.jsonl", &text.replace("river", "RIVER"));
    let stderr = job.fails(3, &["data", "unit", "mix.toml", &id, "--out", "data"]);
    assert!(stderr.contains("verse.jsonl: was changed while it was being read"), "{stderr}");
    assert!(!job.path("data/.units").join(&id).exists());
}

#[test]
fn sizes_beyond_all_are_named() {
    let job = Job::new();
    let run = run_in(job.dir(), &["data", "plan", "mix.toml", "--tokens", "1e18"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("expected 1 or more, and less than 1e18"), "{}", run.stderr);
}

/// Paths that are not Unicode work in every command that takes one.
#[cfg(unix)]
#[test]
fn paths_need_not_be_unicode() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let job = Job::new();
    let odd = OsStr::from_bytes(b"odd\xff");
    let inside = job.dir().join(odd);
    std::fs::create_dir(&inside).expect("creatable");
    for name in ["mix.toml", "verse.jsonl", "prose", "tokenizer.json"] {
        std::fs::rename(job.path(name), inside.join(name)).expect("movable");
    }
    let at = |name: &str| Path::new(odd).join(name);
    let run = |code: &[i32], args: &[&OsStr]| {
        let output = mpt().current_dir(job.dir()).args(args).output().expect("runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some_and(|found| code.contains(&found)), "{args:?}: {stderr}");
    };
    let text = |name: &'static str| OsStr::new(name);
    let data = text("data");
    let (mix, tokenizer) = (at("mix.toml"), at("tokenizer.json"));
    let (out, mds, back, units) = (at("out"), at("mds"), at("back"), at("units"));
    let (mix, tokenizer) = (mix.as_os_str(), tokenizer.as_os_str());
    let (out, mds, back, units) = (out.as_os_str(), mds.as_os_str(), back.as_os_str(), units.as_os_str());
    let (page, out_flag, json) = (at("page.html"), text("--out"), text("--json"));
    run(&[0], &[data, text("build"), mix, out_flag, out, json]);
    run(&[0], &[data, text("build"), mix, out_flag, out, json]);
    run(&[0], &[data, text("inspect"), out, text("--html"), page.as_os_str(), json]);
    run(&[0], &[data, text("verify"), out, json]);
    run(&[0], &[data, text("cat"), out, json]);
    run(&[0], &[data, text("trace"), out, text("--sample"), text("1"), json]);
    run(&[0], &[data, text("simulate"), out, text("--samples"), text("100"), json]);
    run(&[0], &[data, text("plan"), mix, json]);
    run(&[3], &[data, text("plan"), mix, text("--units"), out_flag, units, json]);
    run(&[2], &[data, text("unit"), mix, text("x"), out_flag, units, json]);
    run(&[0], &[data, text("commit"), mix, out_flag, out, json]);
    run(&[0], &[data, text("convert"), out, mds, text("--to"), text("mds"), json]);
    let to_ours = [
        data,
        text("convert"),
        mds,
        back,
        text("--to"),
        text("parquet"),
        text("--tokenizer"),
        tokenizer,
        json,
    ];
    run(&[0], &to_ours);
    run(&[2, 3], &[data, text("build"), OsStr::from_bytes(b"\xff.toml"), out_flag, out]);
}

/// The largest numbers are accepted or refused, without a panic.
#[test]
fn the_largest_numbers_are_answered() {
    let job = Job::new();
    job.done(&["data", "build", "mix.toml", "--out", "data"]);
    let most = u64::MAX.to_string();
    for args in [
        &["cat", "data", "--start", &most, "--count", "2"][..],
        &["cat", "data", "--start", "9223372036854775807", "--count", "1"],
        &["cat", "data", "--split", "eval", "--start", &most],
        &["cat", "data", "--seq-len", &most],
        &["trace", "data", "--sample", &most],
        &["trace", "data", "--step", &most, "--batch", "512"],
        &["simulate", "data", "--start", &most, "--samples", "2"],
        &["simulate", "data", "--world-size", &most, "--nodes", &most, "--batch", &most],
        &["cat", "data", "--start", "999999999999999", "--count", "1"],
        &["trace", "data", "--sample", "999999999999999"],
        &["cat", "data", "--seq-len", "9223372036854775808"],
        &["inspect", "data", "--tokens", "9e17"],
        &["plan", "mix.toml", "--tokens", "9e17"],
    ] {
        let run = job.run(&[&["data"], args].concat());
        assert!([0, 2, 3].contains(&run.code), "{args:?}: {} {}", run.code, run.stderr);
    }
}
