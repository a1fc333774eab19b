//! Module graph of each crate: no cycle among the modules of a folder, and no edge upward in a crate with layers.

mod cycles;
mod graph;
mod layers;
mod source;

use std::path::{Path, PathBuf};

use self::cycles::cycles;
use self::graph::{Graph, module_of};
use self::layers::LAYERS;
use self::source::{Module, Source};

/// Violations in some crates. `files` are all files of the tree.
pub(super) fn problems(crates: &[&str], files: &[PathBuf], read: &dyn Fn(&Path) -> String) -> Vec<String> {
    let rules = Rules { layers: LAYERS };
    crates.iter().flat_map(|name| rules.check(name, files, read)).collect()
}

/// Rules of modules.
struct Rules<'a> {
    layers: &'a [(&'a str, &'a [&'a str])],
}

impl Rules<'_> {
    fn check(&self, name: &str, files: &[PathBuf], read: &dyn Fn(&Path) -> String) -> Vec<String> {
        let (graph, mut problems) = graph(name, files, read);
        problems.extend(cycle_problems(name, &graph));
        if let Some((_, layers)) = self.layers.iter().find(|(of, _)| *of == name) {
            problems.extend(layer_table_problems(name, &graph, layers));
            problems.extend(upward_edges(&graph, layers));
        }
        problems
    }
}

fn cycle_problems(name: &str, graph: &Graph) -> Vec<String> {
    let folder = |cycle: &[&Module]| {
        let path = &cycle[0][..cycle[0].len() - 1];
        [&[name.to_owned()], path].concat().join("::")
    };
    cycles(graph)
        .into_iter()
        .map(|cycle| {
            format!("the modules of `{}` form a cycle: {}", folder(&cycle), format_cycle(graph, &cycle))
        })
        .collect()
}

/// Module graph of a crate, and the files that do not parse.
fn graph(name: &str, files: &[PathBuf], read: &dyn Fn(&Path) -> String) -> (Graph, Vec<String>) {
    let folder = Path::new(name).join("src");
    let (mut sources, mut problems) = (Vec::new(), Vec::new());
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let Ok(inside) = file.strip_prefix(&folder) else { continue };
        match Source::read(&read(file), module_of(inside)) {
            Ok(source) => sources.push((file.clone(), source)),
            Err(error) => problems.push(format!("{} {error}", file.display())),
        }
    }
    (Graph::new(sources), problems)
}

/// Cycle with the source location of each edge.
fn format_cycle(graph: &Graph, cycle: &[&Module]) -> String {
    let edge = |(at, &from): (usize, &&Module)| {
        let to = cycle[(at + 1) % cycle.len()];
        let location = &graph.edges[&(from.clone(), to.clone())];
        format!("`{}` uses `{}` ({location})", last(from), last(to))
    };
    cycle.iter().enumerate().map(edge).collect::<Vec<_>>().join(", ")
}

fn last(module: &Module) -> &str {
    module.last().map_or("crate", String::as_str)
}

/// Top-level modules missing from the table of layers, and names in it that are no module.
fn layer_table_problems(name: &str, graph: &Graph, layers: &[&str]) -> Vec<String> {
    let top: Vec<_> = graph.modules.iter().filter(|module| module.len() == 1).map(last).collect();
    let unlisted = top.iter().filter(|module| !layers.contains(module));
    let unknown_layers = layers.iter().filter(|layer| !top.contains(layer));
    let unlisted = unlisted
        .map(|module| format!("`{name}`: the module `{module}` has no place in tidy's table of layers"));
    let unknown_layers = unknown_layers
        .map(|layer| format!("`{name}`: tidy's table of layers has `{layer}`, which is no module"));
    unlisted.chain(unknown_layers).collect()
}

fn upward_edges(graph: &Graph, layers: &[&str]) -> Vec<String> {
    let layer = |module: &Module| match module.as_slice() {
        [module] => layers.iter().position(|layer| layer == module),
        _ => None,
    };
    let up = graph.edges.iter().filter(|((from, to), _)| layer(to) < layer(from));
    up.map(|((from, to), at)| {
        format!("{at}: `{}` must not use `{}`, which is above it", last(from), last(to))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Violations in a crate `x` of these files.
    fn check(rules: &Rules<'_>, files: &[(&str, &str)]) -> Vec<String> {
        let paths: Vec<_> = files.iter().map(|(path, _)| Path::new("x/src").join(path)).collect();
        let read = |path: &Path| {
            let found = paths.iter().position(|other| other == path).expect("one of the files");
            files[found].1.to_owned()
        };
        rules.check("x", &paths, &read)
    }

    const NO_LAYERS: Rules<'_> = Rules { layers: &[] };

    #[test]
    fn a_cycle_is_found_and_the_shortest_is_shown() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B;\n"),
            ("b/mod.rs", "mod inner;"),
            ("b/inner.rs", "\nfn f() { crate::c::f() }"),
            ("c.rs", "use crate::a::A;\nuse crate::b::B;"),
        ];
        assert_eq!(
            check(&NO_LAYERS, &files),
            [
                "the modules of `x` form a cycle: `b` uses `c` (x/src/b/inner.rs:2), `c` uses `b` (x/src/c.rs:2)"
            ]
        );
    }

    #[test]
    fn knots_are_told_apart() {
        let files = [
            ("a.rs", "use crate::b;"),
            ("b.rs", "use crate::a;"),
            ("c.rs", "use crate::a; use crate::d;"),
            ("d.rs", "use crate::c;"),
        ];
        assert_eq!(check(&NO_LAYERS, &files).len(), 2);
    }

    #[test]
    fn siblings_in_a_folder_are_checked_and_what_holds_them_is_not() {
        let sound = [
            ("a/mod.rs", "mod b; mod c; use b::B; pub use c::C; pub fn f() {}"),
            ("a/b.rs", "use super::f; use super::C;"),
            ("a/c.rs", "use super::f;"),
        ];
        assert_eq!(check(&NO_LAYERS, &sound), [""; 0]);
        let mut files = sound.to_vec();
        files[2].1 = "use super::{f, B};";
        assert_eq!(
            check(&NO_LAYERS, &files),
            [
                "the modules of `x::a` form a cycle: `b` uses `c` (x/src/a/b.rs:1), `c` uses `b` (x/src/a/c.rs:1)"
            ]
        );
    }

    #[test]
    fn names_at_the_root_are_those_of_their_module() {
        let files = [
            ("lib.rs", "mod a; mod error; pub use error::{Error, Kind as Sort};"),
            ("a.rs", "pub struct A(crate::Error);"),
            ("error.rs", "use crate::a::A;\npub enum Error { A(A) }"),
        ];
        assert_eq!(check(&NO_LAYERS, &files).len(), 1);
        let mut files = files;
        files[1].1 = "pub struct A(crate::Sort);";
        assert_eq!(check(&NO_LAYERS, &files).len(), 1);
        files[1].1 = "pub struct A(std::io::Error);";
        assert_eq!(check(&NO_LAYERS, &files), [""; 0]);
    }

    #[test]
    fn names_that_features_decide_are_those_of_all_their_modules() {
        let files = [
            ("a/mod.rs", "#[cfg(x)] pub use b::F; #[cfg(not(x))] pub use c::F; mod b; mod c; mod d;"),
            ("a/b.rs", "use super::d::G;"),
            ("a/c.rs", ""),
            ("a/d.rs", "use super::F;"),
        ];
        assert_eq!(check(&NO_LAYERS, &files).len(), 1);
        let mut files = files;
        (files[1].1, files[2].1) = ("", "use super::d::G;");
        assert_eq!(check(&NO_LAYERS, &files).len(), 1);
    }

    #[test]
    fn tests_and_documentation_make_no_arrow() {
        let files = [
            ("main.rs", "mod a; mod b; #[cfg(test)] mod testing;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "/// See [`crate::a::A`].\npub struct B;\n#[cfg(test)]\nmod tests { use crate::a::A; }"),
            ("testing.rs", "use crate::a::A;"),
        ];
        assert_eq!(check(&NO_LAYERS, &files), [""; 0]);
    }

    #[test]
    fn an_arrow_up_is_found() {
        let layers = [("x", ["a", "b"].as_slice())];
        let rules = Rules { layers: &layers };
        let down = [("a.rs", "use crate::b;"), ("b.rs", "")];
        assert_eq!(check(&rules, &down), [""; 0]);
        let up = [("a.rs", ""), ("b.rs", "\nuse crate::{a::A};")];
        assert_eq!(check(&rules, &up), ["x/src/b.rs:2: `b` must not use `a`, which is above it"]);
    }

    #[test]
    fn the_table_of_layers_has_the_modules_of_the_crate() {
        let layers = [("x", ["a", "b"].as_slice())];
        let rules = Rules { layers: &layers };
        assert_eq!(
            check(&rules, &[("a.rs", ""), ("c.rs", "")]),
            [
                "`x`: the module `c` has no place in tidy's table of layers",
                "`x`: tidy's table of layers has `b`, which is no module"
            ]
        );
    }

    #[test]
    fn what_is_not_rust_is_named() {
        assert_eq!(check(&NO_LAYERS, &[("a.rs", "fn f( {")]).len(), 1);
    }
}
