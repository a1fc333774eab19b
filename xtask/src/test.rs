//! `cargo xtask test`: the examples, in the documentation and of their own, then every test; by cargo-nextest where it is
//! installed.

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::workspace::{Package, Workspace};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only this package
    #[arg(short, long)]
    package: Option<String>,
    /// Also those of object stores, which need some minutes of compiling more
    #[arg(long)]
    remote: bool,
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
        examples(sh, args.package.as_deref())?;
    }
    tests(sh, &[scope.clone(), filters.iter().map(String::as_str).collect()])?;
    if args.remote {
        tests(sh, &[vec!["--package", "mpt-data", "--features", "remote"], vec!["remote"]])?;
    }
    Ok(())
}

/// Runs the tests of some packages whose name contains one of the filters, where there are any.
fn tests(sh: &Shell, [scope, filters]: &[Vec<&str>; 2]) -> Result<()> {
    if has_nextest(sh) {
        cmd!(sh, "cargo nextest run --status-level slow {scope...} {filters...}").run()?;
    } else {
        cmd!(sh, "cargo test --bins --lib --tests {scope...} -- {filters...}").run()?;
    }
    Ok(())
}

/// Runs the examples of one package, or of all. They are built together: a package alone may build what it needs once more, with
/// other features.
fn examples(sh: &Shell, only: Option<&str>) -> Result<()> {
    cmd!(sh, "cargo build --quiet --workspace --examples").run()?;
    let workspace = Workspace::read(sh)?;
    for Package { name, examples, .. } in &workspace.packages {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        for example in examples {
            let example = workspace.target.join("debug/examples").join(example);
            cmd!(sh, "{example}").ignore_stdout().run()?;
        }
    }
    Ok(())
}

fn has_library(package: &str) -> bool {
    !matches!(package, "mpt-cli" | "xtask")
}

fn has_nextest(sh: &Shell) -> bool {
    cmd!(sh, "cargo nextest --version").quiet().ignore_stderr().read().is_ok()
}
