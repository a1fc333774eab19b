//! `cargo xtask lint`: rustfmt, clippy and rustdoc; a warning fails.

use anyhow::Result;
use xshell::{Shell, cmd};

pub(crate) fn run(sh: &Shell) -> Result<()> {
    cmd!(sh, "cargo fmt --all --check").run()?;
    cmd!(sh, "cargo clippy --quiet --workspace --all-targets -- -D warnings").run()?;
    // A step on batches of one's own: mpt-train without run files, prepared data and Parquet.
    cmd!(sh, "cargo clippy --quiet -p mpt-train --no-default-features --all-targets -- -D warnings").run()?;
    // Object stores, which the command has only where it is asked for.
    let remote =
        ["--package", "mpt-data", "--package", "mpt-cli", "--features", "mpt-data/remote,mpt-cli/remote"];
    cmd!(sh, "cargo clippy --quiet {remote...} --all-targets -- -D warnings").run()?;
    let _flags = sh.push_env("RUSTDOCFLAGS", "-D warnings");
    cmd!(sh, "cargo doc --quiet --workspace --no-deps").run()?;
    Ok(())
}
