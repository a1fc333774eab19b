//! Module graph of a crate: an edge per use of one module by another.
//!
//! An edge connects two modules of the same folder: a path from `a::b` to `c::d` is an edge from `a` to `c`, one from
//! `a::b` to `a::e` an edge from `b` to `e` within `a`. A module and its parent have no edge.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::source::{Mention, Module, Source};

/// Limit of imports that are followed, against cycles of re-exports.
const MAX_IMPORTS: usize = 32;

/// Modules of a crate and the edges between them.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// All modules except the root and test modules.
    pub(super) modules: BTreeSet<Module>,
    /// Edges, `(from, to)`, with the first location of each.
    pub(super) edges: BTreeMap<(Module, Module), SourceLocation>,
}

/// Line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceLocation {
    pub(super) file: PathBuf,
    pub(super) line: usize,
}

impl std::fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl Graph {
    /// Graph of a crate's parsed files.
    pub(super) fn new(mut files: Vec<(PathBuf, Source)>) -> Self {
        let tests: Vec<_> = files.iter().flat_map(|(_, source)| source.test_modules.clone()).collect();
        files.retain(|(_, source)| !tests.iter().any(|test| source.modules[0].starts_with(test)));
        let names = Names::new(&files);
        let mut edges = BTreeMap::new();
        for (file, source) in &files {
            for mention in &source.mentions {
                for edge in names.edges(mention) {
                    let location = || SourceLocation { file: file.clone(), line: mention.line };
                    edges.entry(edge).or_insert_with(location);
                }
            }
        }
        let modules = names.modules.into_iter().filter(|module| !module.is_empty()).collect();
        Self { modules, edges }
    }
}

/// Module of a file, from its path below `src`.
pub(super) fn module_of(path: &Path) -> Module {
    let mut module: Module =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let is_folder = module.last().is_some_and(|last| last == "mod");
    let is_root = module.len() == 1 && ["lib", "main"].contains(&module[0].as_str());
    if is_folder || is_root {
        module.pop();
    }
    module
}

/// Name resolution in a crate.
struct Names<'a> {
    modules: BTreeSet<Module>,
    /// Imported paths by module and name; several if the crate's features select one.
    imports: BTreeMap<(&'a [String], &'a str), Vec<&'a [String]>>,
}

impl<'a> Names<'a> {
    fn new(files: &'a [(PathBuf, Source)]) -> Self {
        let sources = || files.iter().map(|(_, source)| source);
        let modules = sources().flat_map(|source| source.modules.iter().cloned()).collect();
        let mut imports = BTreeMap::<_, Vec<_>>::new();
        for import in sources().flat_map(|source| &source.imports) {
            let key = (import.module.as_slice(), import.name.as_str());
            imports.entry(key).or_default().push(import.path.as_slice());
        }
        Self { modules, imports }
    }

    /// Edges of a path: at most one per target.
    fn edges(&self, mention: &Mention) -> Vec<(Module, Module)> {
        let from = &mention.module;
        let edge = |to: Module| {
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            let apart = shared < from.len() && shared < to.len();
            apart.then(|| (from[..=shared].to_vec(), to[..=shared].to_vec()))
        };
        self.targets(from, from, &mention.path, MAX_IMPORTS).into_iter().filter_map(edge).collect()
    }

    /// Modules that may define the target of a path in `scope`. A module's re-exports count as its own, unless `reader`
    /// is within it. Empty for paths outside of the crate.
    fn targets(&self, reader: &Module, scope: &[String], path: &[String], imports: usize) -> Vec<Module> {
        let (mut at, names) = anchor(scope, path);
        for (index, name) in names.iter().enumerate() {
            let inner: Module = at.iter().cloned().chain([name.clone()]).collect();
            if self.modules.contains(&inner) {
                at = inner;
                continue;
            }
            let import = self.imports.get(&(at.as_slice(), name.as_str()));
            return match import {
                Some(paths) if reader.starts_with(&at) && imports > 0 => {
                    let whole = |path: &&[String]| [path, &names[index + 1..]].concat();
                    let paths = paths.iter().map(whole);
                    paths.flat_map(|path| self.targets(reader, &at, &path, imports - 1)).collect()
                }
                None if index == 0 && names.len() == path.len() => Vec::new(),
                _ => vec![at],
            };
        }
        vec![at]
    }
}

/// Module at which a path in `scope` begins, and the remaining names.
fn anchor<'p>(scope: &[String], path: &'p [String]) -> (Module, &'p [String]) {
    let mut at = scope.to_vec();
    let mut names = path;
    while let [first, rest @ ..] = names {
        match first.as_str() {
            "crate" => at.clear(),
            "super" => drop(at.pop()),
            "self" => {}
            _ => break,
        }
        names = rest;
    }
    (at, names)
}
