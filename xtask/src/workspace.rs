//! Workspace metadata from cargo: root, packages, targets, and dependencies between them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

/// Package of the workspace.
#[derive(Debug, Default)]
pub(crate) struct Package {
    /// Name.
    pub(crate) name: String,
    /// Workspace crates it depends on, including those of tests and build scripts.
    pub(crate) ours: Vec<String>,
    /// Features, without `default`.
    pub(crate) features: Vec<String>,
    /// Bench targets.
    pub(crate) benches: Vec<String>,
    /// Examples.
    pub(crate) examples: Vec<String>,
}

/// Workspace, from `cargo metadata`.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Target folder.
    pub(crate) target: PathBuf,
    /// Version common to all packages.
    pub(crate) version: String,
    /// Packages, by name.
    pub(crate) packages: Vec<Package>,
}

impl Workspace {
    /// Runs `cargo metadata`.
    pub(crate) fn read(sh: &Shell) -> Result<Self> {
        let text = cmd!(sh, "cargo metadata --no-deps --format-version 1").quiet().read()?;
        let json: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
        let mut packages: Vec<_> = items(&json, "packages").map(package).collect();
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        let version = items(&json, "packages").map(|package| text_of(package, "version")).next();
        let version = version.context("the workspace has no package")?;
        Ok(Self { target: text_of(&json, "target_directory").into(), version, packages })
    }
}

/// Root folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask lies in the workspace").to_owned()
}

fn package(json: &Value) -> Package {
    let ours = items(json, "dependencies").filter(|dependency| !dependency["path"].is_null());
    let targets = |wanted: &str| {
        let is_wanted = |target: &&Value| items(target, "kind").any(|kind| kind == wanted);
        items(json, "targets").filter(is_wanted).map(|target| text_of(target, "name")).collect()
    };
    Package {
        name: text_of(json, "name"),
        ours: ours.map(|dependency| text_of(dependency, "name")).collect(),
        features: features(json),
        benches: targets("bench"),
        examples: targets("example"),
    }
}

fn features(json: &Value) -> Vec<String> {
    let features = json["features"].as_object().into_iter().flatten();
    features.map(|(name, _)| name.clone()).filter(|name| name != "default").collect()
}

fn items<'a>(json: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    json[key].as_array().into_iter().flatten()
}

fn text_of(json: &Value, key: &str) -> String {
    json[key].as_str().unwrap_or_default().to_owned()
}
