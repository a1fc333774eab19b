//! Inputs of the main job in a temporary folder: text, tokenizer, mix, run file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Run, run_in};

const MIX: &str = r#"
tokenizer = "tokenizer.json"
seq_len = 32
eval_fraction = 0.1
[[sources]]
name = "verse"
proportion = 0.7
paths = ["verse.jsonl"]
format = "jsonl"
[[sources]]
name = "prose"
proportion = 0.3
paths = ["prose/*.txt"]
format = "text"
"#;

const RUN: &str = r#"
[model]
d_model = 32
n_layers = 2
n_heads = 4
vocab_size = 320
max_seq_len = 32
[data]
dir = "data"
[optimizer]
kind = "lion"
lr = 3e-3
[train]
steps = 20
batch_size = 4
"#;

/// Temporary folder with the inputs of all commands.
pub(crate) struct Job(tempfile::TempDir);

impl Job {
    /// Writes text, tokenizer, mix and run file, and builds nothing yet.
    pub(crate) fn new() -> Self {
        let job = Self(tempfile::tempdir().expect("a temporary folder"));
        let words = ["river ", "stone ", "cloud ", "leaf ", "moon "];
        let text = |i: usize, count: usize| {
            (0..count).map(|at| words[(i * 31 + at * at + at / 7) % 5]).collect::<String>()
        };
        let lines: String =
            (0..200).map(|i| format!("{{\"id\": \"v{i}\", \"text\": \"{i} {}\"}}\n", text(i, 60))).collect();
        job.write("verse.jsonl", &lines);
        fs::create_dir(job.path("prose")).expect("creatable");
        (0..20).for_each(|i| job.write(&format!("prose/{i:02}.txt"), &format!("{i}. {}", text(i, 300))));
        job.write("mix.toml", MIX);
        job.write("run.toml", RUN);
        job.done(&["tokenizer", "train", "verse.jsonl", "--vocab-size", "320", "--out", "tokenizer.json"]);
        job
    }

    /// Folder.
    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    /// Path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("writable");
    }

    /// Runs a command in the folder.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        run_in(self.dir(), args)
    }

    /// Runs a command that must succeed. Returns its stdout.
    pub(crate) fn done(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        run.stdout
    }

    /// Runs a command that must succeed. Returns its JSON document.
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = self.done(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// Runs a command that must fail with this exit code. Returns its stderr.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: ") || run.stderr.contains("\nerror: "), "{}", run.stderr);
        run.stderr
    }
}
