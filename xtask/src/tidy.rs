//! `cargo xtask tidy`: rules of the tree that no compiler checks. Each rule is a function that returns its violations.

mod comparisons;
mod links;
mod modules;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use xshell::{Shell, cmd};

use crate::workspace::{Package, Workspace};
use crate::{print_status, reference};

/// Entries of the root folder; no other is allowed.
const TOP_LEVEL: [&str; 16] = [
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "docs",
    "mpt-cli",
    "mpt-core",
    "mpt-data",
    "mpt-infer",
    "mpt-tokenize",
    "mpt-train",
];

/// Allowed dependencies between the workspace's crates. An allowed one need not exist.
const ALLOWED_DEPENDENCIES: [(&str, &[&str]); 7] = [
    ("mpt-core", &[]),
    ("mpt-tokenize", &[]),
    ("mpt-data", &["mpt-tokenize"]),
    ("mpt-infer", &["mpt-core", "mpt-tokenize"]),
    ("mpt-train", &["mpt-core", "mpt-tokenize", "mpt-data"]),
    ("mpt-cli", &["mpt-core", "mpt-tokenize", "mpt-data", "mpt-infer", "mpt-train"]),
    ("xtask", &[]),
];

/// Paths that may contain `unsafe`.
const UNSAFE_ALLOWED: [&str; 6] = [
    "mpt-cli/src/allocator.rs",
    "mpt-cli/src/bus_error.rs",
    "mpt-core/src/kernels",
    "mpt-core/src/mmap.rs",
    "mpt-data/src/mapped_file.rs",
    "mpt-core/tests/hostile/allocations.rs",
];

/// File names that do not tell a file's content.
const VAGUE_NAMES: [&str; 5] = ["base.rs", "common.rs", "helpers.rs", "misc.rs", "utils.rs"];

/// Test command, given in README and run by `.ci/run`.
const TEST_COMMAND: &str = "cargo xtask ci";

pub(crate) fn run(sh: &Shell) -> Result<()> {
    let problems = problems(sh)?;
    for problem in &problems {
        print_status(format_args!("tidy: {problem}"));
    }
    ensure!(problems.is_empty(), "{} rules of the tree are broken", problems.len());
    Ok(())
}

fn problems(sh: &Shell) -> Result<Vec<String>> {
    let files = tracked_files(sh)?;
    let read = |path: &Path| sh.read_file(path).unwrap_or_default();
    let mut problems = Vec::new();
    problems.extend(top_level_problems(&files));
    problems.extend(dependency_problems(&Workspace::read(sh)?.packages));
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        problems.extend(source_file_problems(path, &read(path)));
        problems.extend(comparisons::nan_blind_problems(path, &read(path)));
    }
    problems.extend(modules::problems(&ALLOWED_DEPENDENCIES.map(|(name, _)| name), &files, &read));
    for page in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        problems.extend(links::broken_links(page, &read(page), &|path| sh.path_exists(path), &read));
    }
    problems.extend(links::unlisted_pages(&files, &read(Path::new(links::INDEX))));
    problems.extend(reference::stale_pages(sh)?);
    problems.extend(test_command_problems(&read(Path::new("README.md")), &read(Path::new(".ci/run"))));
    Ok(problems)
}

/// Files that git tracks or would track; build output is ignored.
fn tracked_files(sh: &Shell) -> Result<Vec<PathBuf>> {
    let list = cmd!(sh, "git ls-files --cached --others --exclude-standard").quiet().read()?;
    Ok(list.lines().map(PathBuf::from).filter(|path| sh.path_exists(path)).collect())
}

fn top_level_problems(files: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<_> = files.iter().filter_map(|path| path.iter().next()?.to_str()).collect();
    names.dedup();
    let stray = names.into_iter().filter(|&name| name != "xtask" && !TOP_LEVEL.contains(&name));
    stray.map(|name| format!("`{name}` does not belong at the top of the tree")).collect()
}

fn dependency_problems(packages: &[Package]) -> Vec<String> {
    let mut problems = Vec::new();
    for package in packages {
        let Some((_, allowed)) = ALLOWED_DEPENDENCIES.iter().find(|(name, _)| *name == package.name) else {
            problems
                .push(format!("crate `{}` is not in tidy's table of dependency directions", package.name));
            continue;
        };
        let wrong =
            package.ours.iter().filter(|&name| *name != package.name && !allowed.contains(&name.as_str()));
        problems.extend(wrong.map(|name| format!("`{}` must not depend on `{name}`", package.name)));
    }
    problems
}

fn source_file_problems(path: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let path_text = path.display();
    if !text.starts_with("//!") {
        problems.push(format!("{path_text} does not open with a `//!` header that says what it holds"));
    }
    if path.file_name().is_some_and(|name| VAGUE_NAMES.iter().any(|vague| name == *vague)) {
        problems.push(format!("{path_text}: name the file after what it holds"));
    }
    let exempt = path.starts_with("xtask") || UNSAFE_ALLOWED.iter().any(|allowed| path.starts_with(allowed));
    if !exempt && (text.contains("expect(unsafe_code") || text.contains("allow(unsafe_code")) {
        problems.push(format!("{path_text}: `unsafe` is allowed in {} only", UNSAFE_ALLOWED.join(", ")));
    }
    problems
}

fn test_command_problems(readme: &str, ci: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !readme.lines().any(|line| line.trim() == TEST_COMMAND) {
        problems.push(format!("README.md does not give the line `{TEST_COMMAND}`"));
    }
    if !ci.lines().any(|line| line.trim().trim_start_matches("exec ") == TEST_COMMAND) {
        problems.push(format!(".ci/run does not run README's test command `{TEST_COMMAND}`"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, ours: &[&str]) -> Package {
        let ours = ours.iter().map(ToString::to_string).collect();
        Package { name: name.to_owned(), ours, ..Package::default() }
    }

    #[test]
    fn the_tree_is_tidy() {
        let sh = Shell::new().expect("a current folder");
        sh.change_dir(crate::workspace::root());
        if cmd!(sh, "git rev-parse --git-dir").quiet().ignore_stderr().read().is_err() {
            print_status("skipped: this is not a git checkout");
            return;
        }
        assert_eq!(problems(&sh).expect("git and cargo answer"), Vec::<String>::new());
    }

    #[test]
    fn a_wrong_arrow_is_found() {
        assert_eq!(
            dependency_problems(&[package("mpt-train", &["mpt-core", "mpt-data"])]),
            Vec::<String>::new()
        );
        assert_eq!(
            dependency_problems(&[package("mpt-data", &["mpt-core"])]),
            ["`mpt-data` must not depend on `mpt-core`"]
        );
        assert_eq!(dependency_problems(&[package("mpt-extra", &[])]).len(), 1);
    }

    #[test]
    fn a_stray_file_is_found() {
        let files = ["README.md", "mpt-core/src/lib.rs", "notes.txt"].map(PathBuf::from);
        assert_eq!(top_level_problems(&files), ["`notes.txt` does not belong at the top of the tree"]);
    }

    #[test]
    fn headers_names_and_unsafe_are_checked() {
        let ok = source_file_problems(Path::new("mpt-core/src/nn.rs"), "//! Layers.\n");
        assert_eq!(ok, Vec::<String>::new());
        assert_eq!(source_file_problems(Path::new("mpt-core/src/utils.rs"), "use std;").len(), 2);
        let unsafe_code = "//! X.\n#![expect(unsafe_code, reason = \"\")]";
        assert_eq!(source_file_problems(Path::new("mpt-data/src/x.rs"), unsafe_code).len(), 1);
        assert_eq!(source_file_problems(Path::new("mpt-core/src/kernels/x.rs"), unsafe_code).len(), 0);
    }
}
