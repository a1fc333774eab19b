//! `cargo xtask lint`: rustfmt, clippy and rustdoc, with warnings denied. Clippy runs with all features, each feature
//! alone, and none.

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::print_status;
use crate::workspace::{Package, Workspace};

pub(crate) fn run(sh: &Shell) -> Result<()> {
    cmd!(sh, "cargo fmt --all --check").run()?;
    clippy(sh, &["--workspace", "--all-features"])?;
    for package in &Workspace::read(sh)?.packages {
        for flags in alone(package) {
            print_status(format_args!("clippy {}", flags.join(" ")));
            clippy(sh, &flags)?;
        }
    }
    let _flags = sh.push_env("RUSTDOCFLAGS", "-D warnings");
    cmd!(sh, "cargo doc --quiet --workspace --all-features --no-deps").run()?;
    Ok(())
}

fn clippy(sh: &Shell, flags: &[&str]) -> Result<()> {
    cmd!(sh, "cargo clippy --quiet {flags...} --all-targets -- -D warnings").run()?;
    Ok(())
}

/// Feature flags of a package: none, and each feature alone; empty for a package without features.
fn alone(package: &Package) -> Vec<Vec<&str>> {
    let none = vec!["--package", &package.name, "--no-default-features"];
    let with = |feature| [&none[..], &["--features", feature]].concat();
    let each = package.features.iter().map(|feature| with(feature));
    if package.features.is_empty() { Vec::new() } else { [none.clone()].into_iter().chain(each).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_linted_alone() {
        let names = |features: &[&str]| features.iter().map(ToString::to_string).collect();
        let package = Package { name: "a".to_owned(), features: names(&["b", "c"]), ..Package::default() };
        let flags: Vec<_> = alone(&package).iter().map(|flags| flags[2..].join(" ")).collect();
        let expected =
            ["", " --features b", " --features c"].map(|rest| format!("--no-default-features{rest}"));
        assert_eq!(flags, expected);
        assert_eq!(alone(&Package::default()), Vec::<Vec<&str>>::new());
    }
}
