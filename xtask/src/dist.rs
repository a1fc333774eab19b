//! `cargo xtask dist`: release binary with its SHA-256 in `target/dist`, static if the musl tools are installed.

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::print_status;
use crate::workspace::Workspace;

pub(crate) fn run(sh: &Shell) -> Result<()> {
    let workspace = Workspace::read(sh)?;
    let host = host(sh)?;
    let target = choose_target(sh, &host)?;
    cmd!(sh, "cargo build --release --locked --package mpt-cli --target {target}").run()?;

    let dist = workspace.target.join("dist");
    let suffix = if target.contains("windows") { ".exe" } else { "" };
    let name = format!("mpt-{}-{target}{suffix}", workspace.version);
    sh.create_dir(&dist)?;
    sh.copy_file(workspace.target.join(&target).join(format!("release/mpt{suffix}")), dist.join(&name))?;
    let sum = sha256(sh, &dist.join(&name))?;
    sh.write_file(dist.join(format!("{name}.sha256")), format!("{sum}  {name}\n"))?;
    print_status(format_args!("built {target}: {}\nsha256 {sum}", dist.join(&name).display()));
    Ok(())
}

/// Target: static musl if its standard library and C compiler are installed, else the host's own.
fn choose_target(sh: &Shell, host: &str) -> Result<String> {
    let Some(musl) = host.strip_suffix("-gnu").map(|stem| format!("{stem}-musl")) else {
        return Ok(host.to_owned());
    };
    let library = cmd!(sh, "rustc --print target-libdir --target {musl}").quiet().read()?;
    if !sh.path_exists(library) {
        print_status(format_args!(
            "target {musl} is not installed, so the binary links the system's C library"
        ));
        return Ok(host.to_owned());
    }
    let compiler = cmd!(sh, "musl-gcc --version").quiet().ignore_stderr().read();
    if compiler.is_err() {
        print_status(format_args!("musl-gcc is not installed, so the binary links the system's C library"));
        return Ok(host.to_owned());
    }
    Ok(musl)
}

fn host(sh: &Shell) -> Result<String> {
    let version = cmd!(sh, "rustc --version --verbose").quiet().read()?;
    let line = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc does not name its host")?.to_owned())
}

/// SHA-256 of a file, by `sha256sum` or `shasum`.
fn sha256(sh: &Shell, path: &std::path::Path) -> Result<String> {
    let sum = cmd!(sh, "sha256sum {path}").quiet().ignore_stderr().read();
    let sum = sum.or_else(|_| cmd!(sh, "shasum -a 256 {path}").quiet().read())?;
    let sum = sum.split_whitespace().next().unwrap_or_default().to_owned();
    ensure!(sum.len() == 64, "the checksum tool answered `{sum}`");
    Ok(sum)
}
