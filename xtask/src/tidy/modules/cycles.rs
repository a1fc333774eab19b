//! Cycles of modules: in each knot of modules that all lead to one another, the shortest way round.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::graph::Graph;
use super::source::Module;

/// Who uses whom.
type Adjacency<'a> = BTreeMap<&'a Module, Vec<&'a Module>>;

/// One cycle for each knot, as the modules along it; the last uses the first.
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

/// The modules that `module` leads to and that lead to it.
fn strongly_connected<'a>(adjacency: &Adjacency<'a>, module: &'a Module) -> Vec<&'a Module> {
    let ahead = breadth_first(adjacency, module);
    ahead.keys().copied().filter(|other| breadth_first(adjacency, other).contains_key(module)).collect()
}

/// The shortest way from a module back to itself.
fn shortest_cycle<'a>(adjacency: &Adjacency<'a>, start: &'a Module) -> Option<Vec<&'a Module>> {
    let predecessors = breadth_first(adjacency, start);
    let mut path = vec![*predecessors.get(start)?];
    while path[path.len() - 1] != start {
        path.push(predecessors[path[path.len() - 1]]);
    }
    path.reverse();
    Some(path)
}

/// All that `start` leads to, each with the module before it on a shortest way; `start` itself where a cycle leads back.
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
