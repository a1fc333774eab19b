//! Build, test, bench and release automation beyond `cargo build`. One file per task.
//!
//! `cargo xtask ci` is the whole gate; the other tasks are its parts, or are run by hand. It depends on no crate of the
//! workspace, so it starts at once and can judge a tree that does not compile.
#![expect(clippy::print_stderr, reason = "a task talks to the person who started it")]

mod bench;
mod ci;
mod dist;
mod fuzz;
mod lint;
mod package;
mod reference;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::Parser;
use xshell::Shell;

/// Build, test, bench and release automation.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Everything a change must pass: tidy, lint, package, test, cheapest first
    Ci,
    /// The tests of every crate, and the examples in the documentation
    Test(test::Args),
    /// rustfmt, clippy and rustdoc, with warnings denied
    Lint,
    /// The rules of the tree that no compiler knows: dependency direction, module cycles and layers, headers, links, reference pages
    Tidy,
    /// The pages in docs/reference, from the types that read run and mix files
    Reference,
    /// What would be published, packed, unpacked and checked
    Package,
    /// The bench targets
    Bench(bench::Args),
    /// Coverage-guided fuzzing of the readers of files, where cargo-fuzz and a nightly compiler are installed
    Fuzz(fuzz::Args),
    /// The release binary with its checksum, in target/dist
    Dist,
}

fn main() -> ExitCode {
    match run(Task::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(workspace::root());
    match task {
        Task::Ci => ci::run(&sh),
        Task::Test(args) => test::run(&sh, &args),
        Task::Lint => lint::run(&sh),
        Task::Tidy => tidy::run(&sh),
        Task::Reference => reference::run(&sh),
        Task::Package => package::run(&sh),
        Task::Bench(args) => bench::run(&sh, &args),
        Task::Dist => dist::run(&sh),
        Task::Fuzz(args) => fuzz::run(&sh, &args),
    }
}

/// Prints a status message on stderr.
fn print_status(message: impl std::fmt::Display) {
    eprintln!("{message}");
}
