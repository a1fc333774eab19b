//! `cargo xtask bench --peers`: runs `mpt` and a peer in turn, with the same threads on the same files, and prints
//! medians and ratios as a Markdown table.
//!
//! A comparison that cannot run (no Python, a missing package or file, a flag that `mpt` refuses) is skipped with a
//! message.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use xshell::{Shell, cmd};

use super::cases::{self, Case, DTYPES, MODELS, Suite, quantized};
use crate::print_status;
use crate::workspace::Workspace;

#[derive(Debug, clap::Args)]
pub(crate) struct PeerArgs {
    /// The Python that has the peers' packages
    #[arg(long, value_name = "PATH", default_value = "python3", requires = "peers")]
    python: PathBuf,
    /// Only this part
    #[arg(long, value_enum, requires = "peers")]
    only: Option<Suite>,
    /// Folder of models, `tokenizer.json` and `text.txt`; models are made where they are missing [default: target/peers]
    #[arg(long, value_name = "DIR", requires = "peers")]
    peers_dir: Option<PathBuf>,
    /// Threads of both
    #[arg(long, value_name = "N", default_value_t = 2, requires = "peers")]
    threads: u16,
    /// How often each of both is run
    #[arg(long, value_name = "N", default_value_t = 3, requires = "peers", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// Environment of the comparisons.
struct PeerBench<'a> {
    args: &'a PeerArgs,
    mpt: PathBuf,
    scripts: PathBuf,
    dir: PathBuf,
}

pub(crate) fn run(
    sh: &Shell,
    workspace: &Workspace,
    args: &PeerArgs,
    is_wanted: &dyn Fn(&str) -> bool,
) -> Result<()> {
    cmd!(sh, "cargo build --quiet --release --workspace --bin mpt").run()?;
    let dir = args.peers_dir.clone().unwrap_or_else(|| workspace.target.join("peers"));
    sh.create_dir(&dir)?;
    let dir = dir.canonicalize().with_context(|| dir.display().to_string())?;
    let bench = PeerBench {
        args,
        mpt: workspace.target.join("release/mpt"),
        scripts: crate::workspace::root().join("xtask/peers"),
        dir,
    };
    let cases = cases::all(&bench.dir);
    let cases = cases.iter().filter(|case| args.only.is_none_or(|suite| suite == case.suite));
    let mut lines = Vec::new();
    for case in cases.filter(|case| is_wanted(&case.name)) {
        print_status(format_args!("── {}", case.name));
        match bench.compare(case) {
            Ok(found) => lines.extend(found),
            Err(error) => print_status(format_args!("skipped: {error:#}")),
        }
    }
    if lines.is_empty() {
        bail!("nothing could be compared");
    }
    print_table(&lines);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is what was asked for")]
fn print_table(lines: &[String]) {
    println!("| what | ours | peer | ours / peer | our peak memory | peer's peak memory |");
    println!("|---|---|---|---|---|---|");
    lines.iter().for_each(|line| println!("{line}"));
}

impl PeerBench<'_> {
    /// Runs a comparison. Returns its table rows.
    fn compare(&self, case: &Case) -> Result<Vec<String>> {
        self.check_packages(case.packages)?;
        case.files.iter().try_for_each(|file| self.ensure_input(file))?;
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for _ in 0..self.args.rounds {
            ours.push(self.ours(&case.ours)?);
            peer.push(self.peer(&case.peer)?);
        }
        let row = |&(what, key): &(&str, &str)| {
            let name = format!("{}: {what}", case.name);
            markdown_row(
                &name,
                [&ours, &peer].map(|runs| (median(runs, key), median(runs, "peak_rss_bytes"))),
            )
        };
        Ok(case.metrics.iter().map(row).collect())
    }

    fn check_packages(&self, packages: &[&str]) -> Result<()> {
        for package in packages {
            let found = Command::new(&self.args.python).args(["-c", &format!("import {package}")]).output();
            let found = found.with_context(|| format!("{} does not start", self.args.python.display()))?;
            if !found.status.success() {
                bail!("{} has no package `{package}`", self.args.python.display());
            }
        }
        Ok(())
    }

    /// Creates a missing model file or folder.
    fn ensure_input(&self, file: &str) -> Result<()> {
        let path = self.dir.join(file);
        if path.exists() {
            return Ok(());
        }
        let is_model_of = |model: &&&str| file.starts_with(**model);
        let Some(model) = MODELS.iter().find(is_model_of) else { bail!("{} is not there", path.display()) };
        let folder = self.dir.join(model).display().to_string();
        if !Path::new(&folder).exists() {
            self.make(&["init", &folder, "--preset", model, "--dtype", "bf16"])?;
            self.make_tokenizer(&folder)?;
        }
        for dtype in DTYPES.iter().filter(|dtype| quantized(model, dtype) == file) {
            self.make(&["quantize", &folder, &path.display().to_string(), "--type", dtype])?;
        }
        Ok(())
    }

    /// Trains a tokenizer on the project's own pages: llama.cpp loads no file without one, and the speed does not
    /// depend on it.
    fn make_tokenizer(&self, folder: &str) -> Result<()> {
        let root = crate::workspace::root();
        let [page, out] = [root.join("docs/contributing.md"), Path::new(folder).join("tokenizer.json")]
            .map(|path| path.display().to_string());
        self.make(&["tokenizer", "train", &page, "--vocab-size", "320", "--out", &out])
    }

    fn make(&self, args: &[&str]) -> Result<()> {
        run_to_end(Command::new(&self.mpt).args(args).arg("--quiet")).map(drop)
    }

    fn ours(&self, args: &[String]) -> Result<Value> {
        let threads = self.args.threads.to_string();
        json_output(Command::new(&self.mpt).args(args).args(["--json", "--quiet", "--threads", &threads]))
    }

    fn peer(&self, args: &[String]) -> Result<Value> {
        let threads = self.args.threads.to_string();
        let mut python = Command::new(&self.args.python);
        python.arg(self.scripts.join(&args[0])).args(&args[1..]).args(["--threads", &threads]);
        // read when the libraries are loaded, before a script could set the number of threads
        for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"] {
            python.env(variable, &threads);
        }
        let found = json_output(python.env("PYTHONDONTWRITEBYTECODE", "1"))?;
        if let Some(note) = found["note"].as_str() {
            print_status(note);
        }
        Ok(found)
    }
}

/// Runs a program. Returns its stdout; fails with its error message.
fn run_to_end(command: &mut Command) -> Result<Vec<u8>> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_owned();
    let output = command.output().with_context(|| format!("{} does not start", program.display()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let mut lines = stderr.lines().filter(|line| !line.trim().is_empty());
        // `mpt` prints the error first, Python last
        let line =
            lines.clone().find(|line| line.starts_with("error")).or(lines.next_back()).unwrap_or_default();
        bail!("{} ends with {}: {line}", program.display(), output.status);
    }
    Ok(output.stdout)
}

/// JSON document in the last line of a program's stdout.
fn json_output(command: &mut Command) -> Result<Value> {
    let stdout = String::from_utf8(run_to_end(command)?)?;
    let line = stdout.trim_end().lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("not a JSON document: {line}"))
}

/// Median of a metric; NaN if a document lacks it.
fn median(runs: &[Value], key: &str) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(|run| run[key].as_f64().unwrap_or(f64::NAN)).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Table row: metric and peak memory of `mpt` and of the peer.
fn markdown_row(name: &str, [ours, peer]: [(f64, f64); 2]) -> String {
    let memory = |bytes: f64| format!("{:.2} GB", bytes / 1e9);
    format!(
        "| {name} | {} | {} | {:.2} | {} | {} |",
        format_value(ours.0),
        format_value(peer.0),
        ours.0 / peer.0,
        memory(ours.1),
        memory(peer.1),
    )
}

/// Number with three digits or more, large ones in billions.
fn format_value(value: f64) -> String {
    match value {
        _ if value >= 1e9 => format!("{:.1} G", value / 1e9),
        _ if value >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn medians_and_ratios() {
        let runs = [json!({"a": 3}), json!({"a": 1.5}), json!({"a": 2})];
        assert_eq!(median(&runs, "a"), 2.0);
        assert!(median(&runs, "b").is_nan());
        let line = markdown_row("x: tokens/s", [(300.0, 2e9), (150.0, 4e9)]);
        assert_eq!(line, "| x: tokens/s | 300 | 150 | 2.00 | 2.00 GB | 4.00 GB |");
        assert_eq!([format_value(21.75e9), format_value(12.345)], ["21.8 G", "12.35"]);
    }
}
