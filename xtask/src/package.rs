//! `cargo xtask package`: what would be published, packed by cargo, unpacked, and checked there.
//!
//! The unpacked crates are checked as one workspace with the lock file and profiles of this one, so that what is compiled of
//! other people's crates serves again; cargo's own verification would compile all of it anew.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::workspace::{Workspace, root};

pub(crate) fn run(sh: &Shell) -> Result<()> {
    let workspace = Workspace::read(sh)?;
    cmd!(sh, "cargo package --quiet --workspace --exclude xtask --no-verify --allow-dirty").run()?;
    let packed = workspace.target.join("package");
    let folder = packed.join("unpacked");
    sh.remove_path(&folder)?;
    sh.create_dir(&folder)?;
    let names = workspace.packages.iter().map(|package| &package.name).filter(|&name| name != "xtask");
    let names: Vec<_> = names.map(|name| (name.as_str(), format!("{name}-{}", workspace.version))).collect();
    for (_, folder_name) in &names {
        let file = packed.join(format!("{folder_name}.crate"));
        cmd!(sh, "tar -xzf {file} -C {folder}").quiet().run()?;
    }
    let manifest = sh.read_file(root().join("Cargo.toml"))?;
    sh.write_file(folder.join("Cargo.toml"), manifest_of(&manifest, &names)?)?;
    sh.copy_file(root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    check(sh, &folder, &workspace.target)
}

/// Libraries, the command and the examples; what tests need beside them is not in every package.
fn check(sh: &Shell, folder: &Path, target: &Path) -> Result<()> {
    let _folder = sh.push_dir(folder);
    cmd!(sh, "cargo check --quiet --workspace --lib --bins --examples --target-dir {target}").run()?;
    Ok(())
}

/// The manifest of a workspace of unpacked crates: this one's, with other members, which stand for what is published.
fn manifest_of(ours: &str, names: &[(&str, String)]) -> Result<String> {
    let start = ours.find("members = [").context("Cargo.toml has no list of members")?;
    let end = start + ours[start..].find(']').context("the list of members does not end")? + 1;
    let members: Vec<_> = names.iter().map(|(_, folder)| format!("\"{folder}\"")).collect();
    let mut text = format!("{}members = [{}]{}", &ours[..start], members.join(", "), &ours[end..]);
    text.push_str("\n[patch.crates-io]\n");
    for (name, folder) in names {
        writeln!(text, "{name} = {{ path = \"{folder}\" }}")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_the_unpacked_crates() {
        let ours =
            "[workspace]\nresolver = \"3\"\nmembers = [\"a\", \"xtask\"]\n\n[profile.dev]\nopt-level = 1\n";
        let text = manifest_of(ours, &[("a", "a-0.1.0".to_owned())]).expect("has members");
        assert_eq!(
            text,
            "[workspace]\nresolver = \"3\"\nmembers = [\"a-0.1.0\"]\n\n[profile.dev]\nopt-level = 1\n\n\
             [patch.crates-io]\na = { path = \"a-0.1.0\" }\n"
        );
    }
}
