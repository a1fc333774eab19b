//! Cycles of modules: the shortest one of each strongly connected component.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::graph::Graph;
use super::source::Module;

/// Adjacency lists.
type Adjacency<'a> = BTreeMap<&'a Module, Vec<&'a Module>>;

/// Shortest cycle of each strongly connected component, as the modules along it. The last uses the first.
pub(super) fn cycles(graph: &Graph) -> Vec<Vec<&Module>> {
    let mut adjacency = Adjacency::new();
    for (from, to) in graph.edges.keys() {
        adjacency.entry(from).or_default().push(to);
    }
    let mut done = BTreeSet::new();
    let mut cycles = Vec::new();
    for &module in adjacency.keys() {
        let component = strongly_connected(&adjacency, module);
        if done.contains(module) || component.is_empty() {
            continue;
        }
        let shortest =
            component.iter().filter_map(|start| shortest_cycle(&adjacency, start)).min_by_key(Vec::len);
        cycles.extend(shortest);
        done.extend(component);
    }
    cycles
}

/// Strongly connected component of `module`; empty if no cycle leads through it.
fn strongly_connected<'a>(adjacency: &Adjacency<'a>, module: &'a Module) -> Vec<&'a Module> {
    let ahead = breadth_first(adjacency, module);
    ahead.keys().copied().filter(|other| breadth_first(adjacency, other).contains_key(module)).collect()
}

/// Shortest cycle through a module.
fn shortest_cycle<'a>(adjacency: &Adjacency<'a>, start: &'a Module) -> Option<Vec<&'a Module>> {
    let predecessors = breadth_first(adjacency, start);
    let mut path = vec![*predecessors.get(start)?];
    while path[path.len() - 1] != start {
        path.push(predecessors[path[path.len() - 1]]);
    }
    path.reverse();
    Some(path)
}

/// Breadth-first search. Returns each reachable module with its predecessor on a shortest path; `start` itself if a
/// cycle leads back.
fn breadth_first<'a>(adjacency: &Adjacency<'a>, start: &'a Module) -> BTreeMap<&'a Module, &'a Module> {
    let mut before = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(module) = next.pop_front() {
        for &used in adjacency.get(module).into_iter().flatten() {
            before.entry(used).or_insert_with(|| {
                next.push_back(used);
                module
            });
        }
    }
    before
}
