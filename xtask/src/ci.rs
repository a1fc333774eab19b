//! `cargo xtask ci`: the gate. Cheaper checks run first; tests run last, so that their counts end the output.

use std::time::Instant;

use anyhow::{Context, Result};
use xshell::Shell;

use crate::{lint, package, print_status, test, tidy};

pub(crate) fn run(sh: &Shell) -> Result<()> {
    timed("tidy", || tidy::run(sh))?;
    timed("lint", || lint::run(sh))?;
    timed("package", || package::run(sh))?;
    timed("test", || test::run(sh, &test::Args::default()))
}

fn timed(name: &'static str, task: impl FnOnce() -> Result<()>) -> Result<()> {
    print_status(format_args!("── {name}"));
    let start = Instant::now();
    task().with_context(|| format!("{name} failed"))?;
    print_status(format_args!("── {name} passed in {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}
