//! Cycles of modules: in each knot of modules that all lead to one another, the shortest way round.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::arrows::Graph;
use super::source::Module;

/// Who uses whom.
type Uses<'a> = BTreeMap<&'a Module, Vec<&'a Module>>;

/// One cycle for each knot, as the modules along it; the last uses the first.
pub(super) fn cycles(graph: &Graph) -> Vec<Vec<&Module>> {
    let mut uses = Uses::new();
    for (from, to) in graph.arrows.keys() {
        uses.entry(from).or_default().push(to);
    }
    let mut done = BTreeSet::new();
    let mut cycles = Vec::new();
    for &module in uses.keys() {
        let knot = knot(&uses, module);
        if done.contains(module) || knot.is_empty() {
            continue;
        }
        let shortest = knot.iter().filter_map(|start| way_round(&uses, start)).min_by_key(Vec::len);
        cycles.extend(shortest);
        done.extend(knot);
    }
    cycles
}

/// The modules that `module` leads to and that lead to it.
fn knot<'a>(uses: &Uses<'a>, module: &'a Module) -> Vec<&'a Module> {
    let ahead = ways(uses, module);
    ahead.keys().copied().filter(|other| ways(uses, other).contains_key(module)).collect()
}

/// The shortest way from a module back to itself.
fn way_round<'a>(uses: &Uses<'a>, start: &'a Module) -> Option<Vec<&'a Module>> {
    let ways = ways(uses, start);
    let mut way = vec![*ways.get(start)?];
    while way[way.len() - 1] != start {
        way.push(ways[way[way.len() - 1]]);
    }
    way.reverse();
    Some(way)
}

/// All that `start` leads to, each with the module before it on a shortest way; `start` itself where a cycle leads back.
fn ways<'a>(uses: &Uses<'a>, start: &'a Module) -> BTreeMap<&'a Module, &'a Module> {
    let mut before = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(module) = next.pop_front() {
        for &used in uses.get(module).into_iter().flatten() {
            before.entry(used).or_insert_with(|| {
                next.push_back(used);
                module
            });
        }
    }
    before
}
