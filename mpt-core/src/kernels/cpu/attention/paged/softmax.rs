//! Softmax within a span, and the merging of spans.

use std::ops::Range;

use super::layout::{LANES, PageLayout};
use crate::kernels::cpu::activation::tanh;
use crate::kernels::cpu::attention::flush_negligible;
use crate::kernels::cpu::dispatch::for_each_level;
use crate::kernels::cpu::math::{exp, max, sum};

/// Elements of a partial: the weighted values with the padding of a page row, m, and l.
pub(super) fn partial_len(layout: &PageLayout) -> usize {
    layout.value_stride() + 2
}

/// Scaling, cap and bias that turn the products of one query into scores.
#[derive(Clone, Copy)]
pub(super) struct RowScoreParams {
    pub(super) scale: f32,
    pub(super) cap: Option<f32>,
    pub(super) slope: f32,
    /// Tokens from the first key of the span to the query; negative when the span begins after the query.
    pub(super) distance: i32,
}

for_each_level! {
    /// Turns the products of a query with the keys `seen` of a span into weights e^(score - m); returns m and the sum of weights.
    ///
    /// Keys beside `seen` in their groups of sixteen get weight 0. The sum is 0 when `seen` is empty. `scales` are those of int8
    /// keys and values: products are multiplied by the former, weights by the latter.
    pub(super) fn softmax_weights(row: &mut [f32], seen: &Range<usize>, params: &RowScoreParams, scales: Option<[&[f32]; 2]>) -> (f32, f32) {
        if seen.is_empty() {
            return (f32::NEG_INFINITY, 0.0);
        }
        let all = seen.start / LANES * LANES..seen.end.next_multiple_of(LANES);
        let row = &mut row[all.clone()];
        if let Some([keys, _]) = scales {
            row.iter_mut().zip(&keys[all.clone()]).for_each(|(score, scale)| *score *= scale);
        }
        if let Some(cap) = params.cap {
            let (inner, outer) = (params.scale / cap, cap / params.scale);
            row.iter_mut().for_each(|score| *score = outer * tanh(*score * inner));
        }
        let (from, to) = ((seen.start - all.start) as i32, (seen.end - all.start) as i32);
        let distance = params.distance - all.start as i32;
        for (j, score) in (0i32..).zip(row.iter_mut()) {
            let biased = *score * params.scale - params.slope * (distance - j) as f32;
            *score = if j >= from && j < to { biased } else { f32::NEG_INFINITY };
        }
        let top = max(row);
        for score in row.iter_mut() {
            *score = flush_negligible(exp(*score - top));
        }
        let total = sum(row);
        if let Some([_, values]) = scales {
            row.iter_mut().zip(&values[all]).for_each(|(weight, scale)| *weight *= scale);
        }
        (top, total)
    }

    /// Adds the partial of a later span to the sum of those before it.
    pub(super) fn merge(sum: &mut [f32], partial: &[f32]) {
        let n = sum.len() - 2;
        let ([m, l], [partial_m, partial_l]) = ([sum[n], sum[n + 1]], [partial[n], partial[n + 1]]);
        if partial_l == 0.0 {
            return; // no visible key
        }
        if l == 0.0 {
            return sum.copy_from_slice(partial);
        }
        let top = if partial_m > m { partial_m } else { m };
        let [old, new] = [m, partial_m].map(|m| flush_negligible(exp(m - top)));
        for (sum, partial) in sum.iter_mut().zip(partial) {
            *sum = old * *sum + new * partial;
        }
        sum[n] = top;
    }

    /// Writes the weighted mean of values.
    pub(super) fn normalize(sum: &[f32], out: &mut [f32]) {
        let norm = 1.0 / sum[sum.len() - 1];
        for (out, sum) in out.iter_mut().zip(sum) {
            *out = sum * norm;
        }
    }
}
