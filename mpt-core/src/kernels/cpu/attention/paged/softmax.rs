//! Scores to weights within a span, and the merging of spans.

use std::ops::Range;

use super::layout::{LANES, PageLayout};
use crate::kernels::cpu::activation::tanh;
use crate::kernels::cpu::attention::negligible_to_zero;
use crate::kernels::cpu::dispatch::for_each_level;
use crate::kernels::cpu::math::{exp, max, sum};

/// Numbers of a part: the weighted values, each row as long as it lies in a page, then m, then l.
pub(super) fn part_len(layout: &PageLayout) -> usize {
    layout.value_step() + 2
}

/// How products become scores.
#[derive(Clone, Copy)]
pub(super) struct Curve {
    pub(super) scale: f32,
    pub(super) cap: Option<f32>,
    pub(super) slope: f32,
    /// Tokens from the first key of the span to the query; negative where the span begins behind the query.
    pub(super) distance: i32,
}

for_each_level! {
    /// Turns the products of a query with the keys `seen` of a span into weights e^(score - m) of unscaled values, 0 for the
    /// keys beside them in their sixteens; returns m and the sum of weights, which is 0 where nothing is seen. Products are
    /// those with unscaled keys; `scales` are those of keys and of values.
    pub(super) fn weigh(row: &mut [f32], seen: &Range<usize>, curve: &Curve, scales: Option<[&[f32]; 2]>) -> (f32, f32) {
        if seen.is_empty() {
            return (f32::NEG_INFINITY, 0.0);
        }
        let all = seen.start / LANES * LANES..seen.end.next_multiple_of(LANES);
        let row = &mut row[all.clone()];
        if let Some([keys, _]) = scales {
            row.iter_mut().zip(&keys[all.clone()]).for_each(|(score, scale)| *score *= scale);
        }
        if let Some(cap) = curve.cap {
            let (inner, outer) = (curve.scale / cap, cap / curve.scale);
            row.iter_mut().for_each(|score| *score = outer * tanh(*score * inner));
        }
        let (from, to) = ((seen.start - all.start) as i32, (seen.end - all.start) as i32);
        let distance = curve.distance - all.start as i32;
        for (j, score) in (0i32..).zip(row.iter_mut()) {
            let biased = *score * curve.scale - curve.slope * (distance - j) as f32;
            *score = if j >= from && j < to { biased } else { f32::NEG_INFINITY };
        }
        let top = max(row);
        for score in row.iter_mut() {
            *score = negligible_to_zero(exp(*score - top));
        }
        let total = sum(row);
        if let Some([_, values]) = scales {
            row.iter_mut().zip(&values[all]).for_each(|(weight, scale)| *weight *= scale);
        }
        (top, total)
    }

    /// Adds a later span's part to the sum of those before it.
    pub(super) fn merge(sum: &mut [f32], part: &[f32]) {
        let n = sum.len() - 2;
        let ([m, l], [part_m, part_l]) = ([sum[n], sum[n + 1]], [part[n], part[n + 1]]);
        if part_l == 0.0 {
            return; // nothing seen there
        }
        if l == 0.0 {
            return sum.copy_from_slice(part);
        }
        let top = if part_m > m { part_m } else { m };
        let [old, new] = [m, part_m].map(|m| negligible_to_zero(exp(m - top)));
        for (sum, part) in sum.iter_mut().zip(part) {
            *sum = old * *sum + new * part;
        }
        sum[n] = top;
    }

    /// Writes the mean of values.
    pub(super) fn finish(sum: &[f32], out: &mut [f32]) {
        let norm = 1.0 / sum[sum.len() - 1];
        for (out, sum) in out.iter_mut().zip(sum) {
            *out = sum * norm;
        }
    }
}
