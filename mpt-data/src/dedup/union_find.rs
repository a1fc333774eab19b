//! Union-find over documents: components, each represented by its least member.

/// Components of documents, independent of the order of unions.
#[derive(Debug)]
pub(super) struct UnionFind {
    parents: Vec<u32>,
}

impl UnionFind {
    /// `count` documents, each a component of its own.
    pub(super) fn new(count: u32) -> Self {
        Self { parents: (0..count).collect() }
    }

    /// Least member of the component of a document.
    pub(super) fn root(&self, document: u32) -> u32 {
        let mut at = document;
        while self.parents[at as usize] != at {
            at = self.parents[at as usize];
        }
        at
    }

    /// Unites the components of two documents.
    pub(super) fn union(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root_compressed(a), self.root_compressed(b));
        self.parents[a.max(b) as usize] = a.min(b);
    }

    /// Least member of the component, with path compression.
    fn root_compressed(&mut self, document: u32) -> u32 {
        let least = self.root(document);
        let mut at = document;
        while at != least {
            at = std::mem::replace(&mut self.parents[at as usize], least);
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_joins_changes_nothing() {
        let pairs = [(5, 3), (7, 5), (1, 2), (9, 7), (2, 9), (4, 6)];
        let joined = |order: &mut dyn Iterator<Item = (u32, u32)>| {
            let mut components = UnionFind::new(10);
            order.for_each(|(a, b)| components.union(a, b));
            (0..10).map(|at| components.root(at)).collect::<Vec<_>>()
        };
        let expected = [0, 1, 1, 1, 4, 1, 4, 1, 8, 1];
        assert_eq!(joined(&mut pairs.into_iter()), expected);
        assert_eq!(joined(&mut pairs.into_iter().rev().map(|(a, b)| (b, a))), expected);
    }
}
