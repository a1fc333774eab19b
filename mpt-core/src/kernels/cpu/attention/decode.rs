//! Attention of few queries over a long cache, whose cost is that of reading the cache.
//!
//! Keys and values are read once, for all heads that share them and all queries. The keys of a row are cut into spans of
//! [`SPAN`], counted from key 0; a task is one span of one row and key/value head, and leaves for each of its queries the
//! largest score m, the sum of e^(score - m) and the values weighted by these; spans are then put together in order. What a
//! query gives depends on its own keys alone: not on threads, on other rows, or on the queries beside it.
//!
//! Source of the parts and their sum: Milakov and Gimelshein 2018, section 3.

use std::ops::Range;

use super::blocks::soft_cap;
use super::cached::{Cached, Vectors};
use super::{Shape, negligible_to_zero};
use crate::kernels::cpu::dispatch::for_each_level;
use crate::kernels::cpu::math::{exp, max, sum};
use crate::kernels::cpu::pool;
use crate::kernels::cpu::scratch::Scratch;

/// Keys of a task, at most: the grain of work, a few hundred KiB.
const SPAN: usize = 512;

/// Keys that are widened at once: 16 KiB of f32 at a `head_dim` of 128, which the first-level cache holds.
const TILE: usize = 32;

/// Sums of a product of two vectors that run side by side; their order is part of the result.
const LANES: usize = 16;

/// Queries whose parts are put together in one task.
const TASK_QUERIES: usize = 64;

/// One span of the keys of one row and key/value head.
struct Task {
    batch: usize,
    kv_head: usize,
    keys: Range<usize>,
}

/// Numbers of a query's part: the largest score, the sum, and the weighted values.
fn part_len(e: usize) -> usize {
    e + 2
}

/// Writes the attention output `[b, s, h, e]` of the queries `q` `[b, s, h, e]` over cached keys and values.
pub(crate) fn decode(shape: &Shape<'_>, q: &[f32], [k, v]: [Cached<'_>; 2], out: &mut [f32]) {
    let (h, e, seq) = (shape.n_heads, shape.head_dim, shape.seq);
    let group = h / shape.kv_n_heads;
    let tasks = tasks(shape);
    let task_len = seq * group * part_len(e);
    let mut parts = Scratch::take(tasks.len() * task_len, 0f32);
    pool::run_chunks(&mut parts, task_len, |index, parts| {
        let task = &tasks[index];
        let vectors = [k, v].map(|cached| cached.of_head(task.batch, task.kv_head, task.keys.clone(), e));
        run(shape, task, q, vectors, parts);
    });
    let spans = Spans::new(&tasks, shape);
    pool::run_chunks(out, TASK_QUERIES * e, |chunk, out| {
        for (query, out) in (chunk * TASK_QUERIES..).zip(out.chunks_exact_mut(e)) {
            let (row, head) = (query / h, query % h);
            let index = (row % seq) * group + head % group; // among the queries of a task
            let of_query = |task| &parts[task * task_len + index * part_len(e)..][..part_len(e)];
            combine(spans.of(row / seq, head / group).map(of_query), out);
        }
    });
}

/// All tasks; those of one row and head are neighbors, in the order of keys.
fn tasks(shape: &Shape<'_>) -> Vec<Task> {
    let mut tasks = Vec::new();
    for batch in 0..shape.start.len() {
        let keys = shape.block_keys(batch, &(0..shape.seq));
        for kv_head in 0..shape.kv_n_heads {
            for span in keys.start / SPAN..keys.end.div_ceil(SPAN) {
                let keys = keys.start.max(span * SPAN)..keys.end.min((span + 1) * SPAN);
                tasks.push(Task { batch, kv_head, keys });
            }
        }
    }
    tasks
}

/// Which tasks a row and head have.
struct Spans {
    /// First task of each (row, head), and the end.
    first: Vec<usize>,
    kv_n_heads: usize,
}

impl Spans {
    fn new(tasks: &[Task], shape: &Shape<'_>) -> Self {
        let mut counts = vec![0; shape.start.len() * shape.kv_n_heads + 1];
        for task in tasks {
            counts[task.batch * shape.kv_n_heads + task.kv_head + 1] += 1;
        }
        let first = counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        Self { first: first.collect(), kv_n_heads: shape.kv_n_heads }
    }

    fn of(&self, batch: usize, kv_head: usize) -> Range<usize> {
        let at = batch * self.kv_n_heads + kv_head;
        self.first[at]..self.first[at + 1]
    }
}

/// Writes the parts `[s, h / g, part]` of one task.
fn run(shape: &Shape<'_>, task: &Task, q: &[f32], [k, v]: [Vectors<'_>; 2], parts: &mut [f32]) {
    let (e, group) = (shape.head_dim, shape.n_heads / shape.kv_n_heads);
    let mut wide = Scratch::take(TILE * e, 0f32);
    let mut scores = Scratch::take(shape.seq * group * SPAN, 0f32);
    score(shape, task, q, k, &mut wide, &mut scores);
    let queries = || queries_of(shape, task);
    for ((query, scores), part) in
        queries().zip(scores.chunks_exact_mut(SPAN)).zip(parts.chunks_exact_mut(part_len(e)))
    {
        (part[0], part[1]) = weigh(shape, &query, &mut scores[query.seen.clone()], [k, v]);
        part[2..].fill(0.0);
    }
    for tile in tiles(task.keys.len()) {
        let values = v.slice(tile.clone(), e).unscaled(&mut wide);
        let mut ahead = v.slice(next(&tile, task.keys.len()), e).bytes();
        for ((query, scores), part) in
            queries().zip(scores.chunks_exact(SPAN)).zip(parts.chunks_exact_mut(part_len(e)))
        {
            let (from, to) = (tile.start.max(query.seen.start), tile.end.min(query.seen.end));
            if from < to {
                let values = &values[(from - tile.start) * e..(to - tile.start) * e];
                accumulate(&mut part[2..], &scores[from..to], values, std::mem::take(&mut ahead));
            }
        }
    }
}

/// Writes the products of all queries of a task with all its keys, `[queries, SPAN]`.
fn score(shape: &Shape<'_>, task: &Task, q: &[f32], k: Vectors<'_>, wide: &mut [f32], scores: &mut [f32]) {
    let (h, e, group) = (shape.n_heads, shape.head_dim, shape.n_heads / shape.kv_n_heads);
    let mut sums: Sums = [[0f32; LANES]; TILE];
    for tile in tiles(task.keys.len()) {
        let keys = k.slice(tile.clone(), e).unscaled(wide);
        let mut ahead = k.slice(next(&tile, task.keys.len()), e).bytes();
        for (index, scores) in scores.chunks_exact_mut(SPAN).enumerate() {
            let (i, head) = (index / group, task.kv_head * group + index % group);
            let first = ((task.batch * shape.seq + i) * h + head) * e;
            let ahead = std::mem::take(&mut ahead);
            products(&mut scores[tile.clone()], &q[first..first + e], keys, &mut sums, ahead);
        }
    }
}

/// The sums of a tile's products by lanes.
type Sums = [[f32; LANES]; TILE];

/// Adds to each lane the one `BY` further; of the results, the first `BY` lanes have a meaning. That the others are
/// computed too leaves the compiler one loop over neighbors.
#[inline(always)]
fn fold<const BY: usize>(sums: &mut Sums) {
    let flat: &mut [f32] = sums.as_flattened_mut();
    for at in 0..TILE * LANES - BY {
        flat[at] += flat[at + BY];
    }
}

/// One query of a task.
struct Query {
    head: usize,
    /// The keys it sees, counted from the task's first; may be none.
    seen: Range<usize>,
    /// Tokens from the first key it sees to itself.
    distance: usize,
}

/// The queries of a task, `[s, h / g]`.
fn queries_of<'a>(shape: &'a Shape<'_>, task: &'a Task) -> impl Iterator<Item = Query> + 'a {
    let group = shape.n_heads / shape.kv_n_heads;
    (0..shape.seq * group).map(move |index| {
        let (i, head) = (index / group, task.kv_head * group + index % group);
        let (visible, keys) = (shape.visible(task.batch, i), &task.keys);
        let from = visible.start.clamp(keys.start, keys.end);
        let end = visible.end.clamp(from, keys.end);
        let seen = from - keys.start..end - keys.start;
        Query { head, seen, distance: (visible.end - 1).saturating_sub(from) }
    })
}

/// Ranges of up to [`TILE`] keys of a task.
fn tiles(keys: usize) -> impl Iterator<Item = Range<usize>> {
    (0..keys).step_by(TILE).map(move |from| from..(from + TILE).min(keys))
}

/// The tile behind `tile`, empty at the end.
fn next(tile: &Range<usize>, keys: usize) -> Range<usize> {
    tile.end..(tile.end + TILE).min(keys)
}

/// Asks for bytes that are read soon. The processor does so by itself only within a page, which a vector soon leaves.
#[inline(always)]
fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

        #[expect(unsafe_code, reason = "a prefetch takes a raw pointer")]
        // SAFETY: a prefetch is a hint without effect on memory, and every x86-64 processor has it.
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// `bytes` in `count` parts or fewer.
#[inline(always)]
fn shares(bytes: &[u8], count: usize) -> std::slice::Chunks<'_, u8> {
    bytes.chunks(bytes.len().div_ceil(count.max(1)).max(1))
}

/// Turns the products of a query with the keys it sees into weights of the unscaled values; returns the largest score and
/// the sum of e^(score - largest).
fn weigh(shape: &Shape<'_>, query: &Query, row: &mut [f32], [k, v]: [Vectors<'_>; 2]) -> (f32, f32) {
    if row.is_empty() {
        return (f32::NEG_INFINITY, 0.0);
    }
    if let Some(scales) = k.scales() {
        times(row, &scales[query.seen.clone()]);
    }
    if let Some(cap) = shape.cap {
        soft_cap(row, shape.scale, cap);
    }
    let largest_and_sum = weights(row, shape.scale, shape.slopes[query.head], query.distance as i32);
    if let Some(scales) = v.scales() {
        times(row, &scales[query.seen.clone()]);
    }
    largest_and_sum
}

/// Writes the mean of values over all keys, from the parts of all spans.
fn combine<'p>(parts: impl Iterator<Item = &'p [f32]> + Clone, out: &mut [f32]) {
    let top = parts.clone().fold(f32::NEG_INFINITY, |top, part| top.max(part[0]));
    let mut total = 0.0;
    out.fill(0.0);
    for part in parts {
        let weight = negligible_to_zero(exp(part[0] - top));
        total += weight * part[1];
        accumulate(out, &[weight], &part[2..], &[]);
    }
    let norm = 1.0 / total;
    out.iter_mut().for_each(|out| *out *= norm);
}

/// Precision of a query `[e]` with `keys` `[N, e]`, summed by lanes in the order of numbers.
#[inline(always)]
fn lane_sums<const N: usize>(query: &[f32], keys: &[f32], lanes: &mut [[f32; LANES]; N]) {
    let (e, (query, query_rest)) = (query.len(), query.as_chunks::<LANES>());
    let split = |n: usize| keys[n * e..(n + 1) * e].as_chunks::<LANES>();
    let keys: [&[[f32; LANES]]; N] = std::array::from_fn(|n| &split(n).0[..query.len()]);
    let rests: [&[f32]; N] = std::array::from_fn(|n| split(n).1);
    let mut sums = [[0f32; LANES]; N];
    for (at, x) in query.iter().enumerate() {
        for (sums, key) in sums.iter_mut().zip(&keys) {
            for lane in 0..LANES {
                sums[lane] += x[lane] * key[at][lane];
            }
        }
    }
    *lanes = sums;
    for (lanes, rest) in lanes.iter_mut().zip(&rests) {
        for (sum, (x, y)) in lanes.iter_mut().zip(query_rest.iter().zip(*rest)) {
            *sum += x * y;
        }
    }
}

/// Adds the weighted columns `from..from + N` of `values` `[weights, e]` to those of `out`; asks for `ahead` meanwhile.
#[inline(always)]
fn columns<const N: usize>(out: &mut [f32], from: usize, weights: &[f32], values: &[f32], ahead: &[u8]) {
    let mut ahead = shares(ahead, weights.len());
    let e = out.len();
    let out = &mut out[from..from + N];
    let mut lanes = [0f32; N];
    lanes.copy_from_slice(out);
    for (weight, row) in weights.iter().zip(values.chunks_exact(e)) {
        ahead.next().into_iter().for_each(prefetch);
        let row = &row[from..from + N];
        for lane in 0..N {
            lanes[lane] += weight * row[lane];
        }
    }
    out.copy_from_slice(&lanes);
}

for_each_level! {
    /// Precision of a query `[e]` with `keys` `[scores, e]`. The sums of all keys go through memory together: a sum that
    /// ends in registers makes the compiler vectorize by pairs alone. Asks for `ahead` meanwhile.
    fn products(scores: &mut [f32], query: &[f32], keys: &[f32], sums: &mut Sums, ahead: &[u8]) {
        let e = query.len();
        let fours = keys.chunks_exact(4 * e);
        let rest = scores.len() / 4 * 4;
        let mut ahead = shares(ahead, fours.len());
        for (keys, lanes) in fours.zip(sums.as_chunks_mut().0) {
            ahead.next().into_iter().for_each(prefetch);
            lane_sums::<4>(query, keys, lanes);
        }
        for (key, lanes) in keys[rest * e..].chunks_exact(e).zip(sums[rest..].as_chunks_mut().0) {
            lane_sums::<1>(query, key, lanes);
        }
        fold::<8>(sums);
        fold::<4>(sums);
        fold::<2>(sums);
        for (score, lanes) in scores.iter_mut().zip(sums) {
            *score = lanes[0] + lanes[1];
        }
    }

    /// Turns raw scores into e^(score - m) for the largest score m; returns m and their sum. The first key lies `distance`
    /// tokens before the query.
    fn weights(row: &mut [f32], scale: f32, slope: f32, distance: i32) -> (f32, f32) {
        for (j, score) in row.iter_mut().enumerate() {
            *score = *score * scale - slope * (distance - j as i32) as f32;
        }
        let top = max(row);
        for score in row.iter_mut() {
            *score = negligible_to_zero(exp(*score - top));
        }
        (top, sum(row))
    }

    fn times(row: &mut [f32], scales: &[f32]) {
        for (value, scale) in row.iter_mut().zip(scales) {
            *value *= scale;
        }
    }

    /// Adds the weighted rows of `values` `[weights, e]` to `out` `[e]`, in order; asks for `ahead` meanwhile.
    fn accumulate(out: &mut [f32], weights: &[f32], values: &[f32], ahead: &[u8]) {
        let e = out.len();
        let (wide, narrow) = (e / 64 * 64, e / 16 * 16);
        let mut ahead = shares(ahead, wide / 64);
        let mut share = || ahead.next().unwrap_or_default();
        for from in (0..wide).step_by(64) {
            columns::<64>(out, from, weights, values, share());
        }
        for from in (wide..narrow).step_by(16) {
            columns::<16>(out, from, weights, values, share());
        }
        for from in narrow..e {
            columns::<1>(out, from, weights, values, &[]);
        }
    }
}
