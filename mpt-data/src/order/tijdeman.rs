//! Tijdeman's schedule: the order in which weighted sources take turns, none ever a whole turn ahead or behind.
//!
//! Source: R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980).

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Draw number `count` of a source, with its deadline.
///
/// With `k` sources and weights `a` of sum `B`, the draw is released at the first `n` (from 1) where
/// `(2k−2)(a·n − count·B) ≥ B`. Of the released draws, the one with the least `((2k−3) + count·(2k−2)) / a` is next.
#[derive(Debug, PartialEq, Eq)]
struct PendingDraw {
    /// Numerator of the deadline, over `weight`.
    deadline: u128,
    weight: u64,
    source: usize,
    count: u64,
}

impl Ord for PendingDraw {
    fn cmp(&self, other: &Self) -> Ordering {
        let left = self.deadline * u128::from(other.weight);
        let right = other.deadline * u128::from(self.weight);
        left.cmp(&right).then(self.source.cmp(&other.source))
    }
}

impl PartialOrd for PendingDraw {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One period of the mix: the source of each sample, and its rank among the samples of that source.
pub(super) fn tijdeman_schedule(weights: &[u64]) -> (Vec<u16>, Vec<u32>) {
    let period: u64 = weights.iter().sum();
    let slack = (2 * weights.len() as u64).saturating_sub(2).max(1);
    let release = |source: usize, count: u64| {
        let owed = u128::from(period) * (1 + u128::from(slack) * u128::from(count));
        owed.div_ceil(u128::from(slack) * u128::from(weights[source])) as u64
    };
    let pending = |source: usize, count: u64| {
        let deadline = u128::from(slack - 1) + u128::from(count) * u128::from(slack);
        PendingDraw { deadline, weight: weights[source], source, count }
    };
    let mut waiting: BinaryHeap<_> = (0..weights.len()).map(|s| Reverse((release(s, 0), s, 0))).collect();
    let mut released: BinaryHeap<Reverse<PendingDraw>> = BinaryHeap::new();
    let (mut sources, mut ranks) = (Vec::new(), Vec::new());
    for now in 1..=period {
        while let Some(&Reverse((from, source, count))) = waiting.peek().filter(|next| next.0.0 <= now) {
            debug_assert!(from <= now);
            waiting.pop();
            released.push(Reverse(pending(source, count)));
        }
        let Reverse(next) = released.pop().expect("Tijdeman's theorem: some source is due at every sample");
        sources.push(next.source as u16);
        ranks.push(next.count as u32);
        waiting.push(Reverse((release(next.source, next.count + 1), next.source, next.count + 1)));
    }
    (sources, ranks)
}
