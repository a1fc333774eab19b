//! `cargo xtask test`: doctests, examples and tests with all features, by cargo-nextest if it is installed. The last
//! line names the tests that skipped a part.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::print_status;
use crate::workspace::{Package, Workspace};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only this package
    #[arg(short, long)]
    package: Option<String>,
    /// Only tests whose name contains one of these
    filters: Vec<String>,
}

/// Variable with the path of the file in which tests list themselves if they skip a part.
const SKIPPED: &str = "MPT_SKIPPED_TESTS";

/// Folder beside the checkout with more reference models, data and tokenizers.
const SHARED: &str = "../shared";

/// Features of all builds: the same everywhere, so that nothing is built twice.
const FEATURES: &str = "--all-features";

pub(crate) fn run(sh: &Shell, args: &Args) -> Result<()> {
    let scope: Vec<&str> = match &args.package {
        Some(package) => vec!["--package", package],
        None => vec!["--workspace"],
    };
    let (scope, filters) = (&scope, &args.filters);
    if filters.is_empty() && args.package.as_deref().is_none_or(has_library) {
        cmd!(sh, "cargo test --quiet --doc {FEATURES} {scope...}").run()?;
        examples(sh, args.package.as_deref())?;
    }
    let skipped = Workspace::read(sh)?.target.join("skipped-tests.txt");
    sh.remove_path(&skipped)?;
    let _list = sh.push_env(SKIPPED, &skipped);
    if has_nextest(sh) {
        cmd!(sh, "cargo nextest run --status-level slow {FEATURES} {scope...} {filters...}").run()?;
    } else {
        cmd!(sh, "cargo test --bins --lib --tests {FEATURES} {scope...} -- {filters...}").run()?;
    }
    print_status(summary(&sh.read_file(&skipped).unwrap_or_default(), sh.path_exists(Path::new(SHARED))));
    Ok(())
}

/// Summary of `list`, which has a line for each skipped part of a test.
fn summary(list: &str, shared_is_here: bool) -> String {
    let tests: BTreeSet<&str> = list.lines().collect();
    match (tests.len(), shared_is_here) {
        (0, true) => format!("no test ran without a part of its own: {SHARED} is here"),
        (0, false) => format!("{SHARED} is absent; none of these tests uses it"),
        (count, _) => {
            let names: Vec<_> = tests.into_iter().collect();
            let names = names.join(", ");
            format!("{count} tests ran without their part in {SHARED}, which is absent or lacks it: {names}")
        }
    }
}

/// Runs the examples of one package, or of all. They are built together, because a package alone might build its
/// dependencies again with other features.
fn examples(sh: &Shell, only: Option<&str>) -> Result<()> {
    cmd!(sh, "cargo build --quiet --workspace --examples {FEATURES}").run()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_skipped_is_counted_once_and_named() {
        let text = summary("mpt-core: parity\nmpt-core: parity\nmpt-cli: models\n", false);
        assert!(text.starts_with("2 tests ran without their part in ../shared, "), "{text}");
        assert!(text.ends_with(": mpt-cli: models, mpt-core: parity"), "{text}");
        assert_eq!(summary("", true), "no test ran without a part of its own: ../shared is here");
        assert!(summary("", false).starts_with("../shared is absent"));
    }
}
