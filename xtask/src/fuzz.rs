//! `cargo xtask fuzz`: coverage-guided fuzzing of the readers of weights, each target in turn.

use anyhow::{Result, ensure};
use xshell::{Cmd, Shell, cmd};

use crate::say;

/// The targets of `mpt-core/fuzz`.
const TARGETS: [&str; 6] = ["adapter", "config", "gguf", "index", "pickle", "safetensors"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this target
    #[arg(long, value_parser = TARGETS)]
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
    cmd!(sh, "cargo test --quiet --workspace --test hostile -- --ignored seeds").run()?;
    let _dir = sh.push_dir("mpt-core/fuzz");
    for target in TARGETS.iter().filter(|target| args.target.as_ref().is_none_or(|only| only == *target)) {
        say(format_args!("── {target}"));
        let time = format!("-max_total_time={}", args.seconds);
        let bounds = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536"];
        cmd!(sh, "cargo +nightly fuzz run {target} -- {time} {bounds...}").run()?;
    }
    Ok(())
}

fn answers(command: Cmd<'_>) -> bool {
    command.quiet().ignore_stderr().read().is_ok()
}
