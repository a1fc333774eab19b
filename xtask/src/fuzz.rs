//! `cargo xtask fuzz`: coverage-guided fuzzing of the file parsers, one target after the other.

use anyhow::{Result, ensure};
use xshell::{Cmd, Shell, cmd};

use crate::print_status;

/// Targets, with the crate whose folder `fuzz` holds them.
const TARGETS: [(&str, &str); 15] = [
    ("adapter", "mpt-core"),
    ("config", "mpt-core"),
    ("gguf", "mpt-core"),
    ("index", "mpt-core"),
    ("pickle", "mpt-core"),
    ("safetensors", "mpt-core"),
    ("compressed", "mpt-data"),
    ("jsonl", "mpt-data"),
    ("manifest", "mpt-data"),
    ("mds_index", "mpt-data"),
    ("mds_shard", "mpt-data"),
    ("megatron", "mpt-data"),
    ("shard", "mpt-data"),
    ("template", "mpt-tokenize"),
    ("tokenizer", "mpt-tokenize"),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this target
    #[arg(long, value_parser = TARGETS.map(|(target, _)| target))]
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(sh: &Shell, args: &Args) -> Result<()> {
    ensure!(
        answers(cmd!(sh, "cargo +nightly --version")),
        "fuzzing needs a nightly compiler: rustup toolchain install nightly"
    );
    ensure!(
        answers(cmd!(sh, "cargo +nightly fuzz --version")),
        "fuzzing needs cargo-fuzz: cargo install cargo-fuzz"
    );
    let seeds = "-p mpt-core -p mpt-tokenize -p mpt-data --test hostile --test it".split(' ');
    cmd!(sh, "cargo test --quiet {seeds...} -- --ignored seeds").run()?;
    let is_wanted = |target: &str| args.target.as_ref().is_none_or(|only| only == target);
    for (target, of_crate) in TARGETS.into_iter().filter(|(target, _)| is_wanted(target)) {
        print_status(format_args!("── {of_crate}: {target}"));
        let _dir = sh.push_dir(format!("{of_crate}/fuzz"));
        let time = format!("-max_total_time={}", args.seconds);
        let bounds = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536"];
        cmd!(sh, "cargo +nightly fuzz run {target} -- {time} {bounds...}").run()?;
    }
    Ok(())
}

fn answers(command: Cmd<'_>) -> bool {
    command.quiet().ignore_stderr().read().is_ok()
}
