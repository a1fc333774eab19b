//! `cargo xtask bench`: runs the bench targets whose name contains a filter; with `--peers`, compares `mpt` with other
//! programs.

mod cases;
mod peers;

use anyhow::{Result, ensure};
use xshell::{Shell, cmd};

use crate::print_status;
use crate::workspace::Workspace;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only bench targets, or with `--peers` only comparisons, whose name contains this
    filter: Option<String>,
    /// Compare `mpt` with what people run today, in turn on this machine, instead
    #[arg(long)]
    peers: bool,
    #[command(flatten)]
    with: peers::PeerArgs,
}

pub(crate) fn run(sh: &Shell, args: &Args) -> Result<()> {
    let workspace = Workspace::read(sh)?;
    let is_wanted = |name: &str| args.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()));
    if args.peers {
        return peers::run(sh, &workspace, &args.with, &is_wanted);
    }
    let mut ran = 0;
    for package in &workspace.packages {
        for bench in package.benches.iter().filter(|bench| is_wanted(bench)) {
            let name = &package.name;
            print_status(format_args!("── {name}: {bench}"));
            cmd!(sh, "cargo bench --quiet --package {name} --bench {bench}").run()?;
            ran += 1;
        }
    }
    ensure!(ran > 0, "no bench target matches");
    Ok(())
}
