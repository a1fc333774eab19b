//! `cargo xtask test`: the examples in the documentation, then every test; by cargo-nextest where it is installed.

use anyhow::Result;
use xshell::{Shell, cmd};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only this package
    #[arg(short, long)]
    package: Option<String>,
    /// Only tests whose name contains one of these
    filters: Vec<String>,
}

pub(crate) fn run(sh: &Shell, args: &Args) -> Result<()> {
    let scope: Vec<&str> = match &args.package {
        Some(package) => vec!["--package", package],
        None => vec!["--workspace"],
    };
    let (scope, filters) = (&scope, &args.filters);
    if filters.is_empty() && args.package.as_deref().is_none_or(has_library) {
        cmd!(sh, "cargo test --quiet --doc {scope...}").run()?;
    }
    if has_nextest(sh) {
        cmd!(sh, "cargo nextest run --status-level slow {scope...} {filters...}").run()?;
    } else {
        cmd!(sh, "cargo test --bins --lib --tests {scope...} -- {filters...}").run()?;
    }
    Ok(())
}

fn has_library(package: &str) -> bool {
    !matches!(package, "mpt-cli" | "xtask")
}

fn has_nextest(sh: &Shell) -> bool {
    cmd!(sh, "cargo nextest --version").quiet().ignore_stderr().read().is_ok()
}
