//! Attention of few queries over a long cache, as fast as memory gives the cache.
//!
//! Keys and values are read once, for all heads that share them and all queries. The keys of a row are cut into spans of
//! [`SPAN`], counted from key 0; a task is one span of one row and key/value head, and leaves for each of its queries the
//! largest score m, the sum of e^(score - m) and the values weighted by these; spans are then put together in order. What a
//! query gives depends on its own keys alone: not on threads, on other rows, or on the queries beside it.
//!
//! Source of the parts and their sum: Milakov and Gimelshein 2018, section 3.

use std::ops::Range;

use rayon::prelude::*;

use super::Shape;
use super::blocks::soft_cap;
use super::cached::{Cached, Vectors};
use crate::kernels::cpu::dispatch::for_each_level;
use crate::kernels::cpu::math::{dot, exp, exp_shifted, max};

/// Keys of a task, at most: the grain of work, a few hundred KiB.
const SPAN: usize = 512;

/// Keys that are widened at once: 16 KiB of f32 at a `head_dim` of 128, which the first-level cache holds.
const TILE: usize = 32;

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
    let mut parts = vec![0f32; tasks.len() * task_len];
    parts.par_chunks_exact_mut(task_len).zip(&tasks).for_each_init(
        || Scratch::new(seq * group, e),
        |scratch, (parts, task)| {
            let vectors = [k, v].map(|cached| cached.of_head(task.batch, task.kv_head, task.keys.clone(), e));
            run(shape, task, q, vectors, scratch, parts);
        },
    );
    let spans = Spans::new(&tasks, shape);
    out.par_chunks_exact_mut(e).with_min_len(64).enumerate().for_each(|(query, out)| {
        let (row, head) = (query / h, query % h);
        let index = (row % seq) * group + head % group; // among the queries of a task
        let tasks = spans.of(row / seq, head / group);
        let parts = &parts[tasks.start * task_len..tasks.end * task_len];
        let of_query = |task| &parts[task * task_len + index * part_len(e)..][..part_len(e)];
        combine((0..tasks.len()).map(of_query), out);
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

/// Room for one task at a time.
struct Scratch {
    wide: Vec<f32>,
    /// `[queries, SPAN]`
    scores: Vec<f32>,
}

impl Scratch {
    fn new(queries: usize, e: usize) -> Self {
        Self { wide: vec![0f32; TILE * e], scores: vec![0f32; queries * SPAN] }
    }
}

/// The parts `[s, h / g, part]` of one task.
fn run(
    shape: &Shape<'_>,
    task: &Task,
    q: &[f32],
    [k, v]: [Vectors<'_>; 2],
    scratch: &mut Scratch,
    parts: &mut [f32],
) {
    let (h, e, seq) = (shape.n_heads, shape.head_dim, shape.seq);
    let group = h / shape.kv_n_heads;
    let Scratch { wide, scores } = scratch;
    for tile in tiles(task.keys.len()) {
        let keys = k.slice(tile.clone(), e).unscaled(wide);
        for (i, scores) in scores.chunks_exact_mut(group * SPAN).enumerate() {
            let first = (task.batch * seq + i) * h + task.kv_head * group;
            products(&mut scores[tile.start..], &q[first * e..(first + group) * e], keys, e);
        }
    }
    for (index, (scores, part)) in
        scores.chunks_exact_mut(SPAN).zip(parts.chunks_exact_mut(part_len(e))).enumerate()
    {
        let (i, head) = (index / group, task.kv_head * group + index % group);
        let seen = seen(shape, task, i);
        (part[0], part[1]) =
            weigh(shape, head, &mut scores[seen.clone()], seen.start, distance(shape, task, i), [k, v]);
    }
    for tile in tiles(task.keys.len()) {
        let values = v.slice(tile.clone(), e).unscaled(wide);
        for (index, (scores, part)) in
            scores.chunks_exact(SPAN).zip(parts.chunks_exact_mut(part_len(e))).enumerate()
        {
            let seen = seen(shape, task, index / group);
            let (from, to) = (tile.start.max(seen.start), tile.end.min(seen.end));
            if from < to {
                let values = &values[(from - tile.start) * e..(to - tile.start) * e];
                accumulate(&mut part[2..], &scores[from..to], values);
            }
        }
    }
}

/// Ranges of up to [`TILE`] keys of a task.
fn tiles(keys: usize) -> impl Iterator<Item = Range<usize>> {
    (0..keys).step_by(TILE).map(move |from| from..(from + TILE).min(keys))
}

/// The keys of a task that query `i` sees, counted from the task's first; may be empty.
fn seen(shape: &Shape<'_>, task: &Task, i: usize) -> Range<usize> {
    let (visible, first) = (shape.visible(task.batch, i), task.keys.start);
    let end = visible.end.clamp(first, task.keys.end) - first;
    (visible.start.clamp(first, task.keys.end) - first).min(end)..end
}

/// Tokens from the first key of a task to query `i`.
fn distance(shape: &Shape<'_>, task: &Task, i: usize) -> isize {
    (shape.start[task.batch] + i) as isize - task.keys.start as isize
}

/// Turns the products of a query with the keys it sees, those from `first` on in the task, into weights of the unscaled
/// values; returns the largest score and the sum of e^(score - largest).
fn weigh(
    shape: &Shape<'_>,
    head: usize,
    row: &mut [f32],
    first: usize,
    distance: isize,
    [k, v]: [Vectors<'_>; 2],
) -> (f32, f32) {
    if row.is_empty() {
        return (f32::NEG_INFINITY, 0.0);
    }
    if let Some(scales) = k.scales() {
        times(row, &scales[first..first + row.len()]);
    }
    if let Some(cap) = shape.cap {
        soft_cap(row, shape.scale, cap);
    }
    let result = weights(row, shape.scale, shape.slopes[head], (distance - first as isize) as i32);
    if let Some(scales) = v.scales() {
        times(row, &scales[first..first + row.len()]);
    }
    result
}

/// Writes the mean of values over all keys, from the parts of all spans.
fn combine<'p>(parts: impl Iterator<Item = &'p [f32]> + Clone, out: &mut [f32]) {
    let top = parts.clone().fold(f32::NEG_INFINITY, |top, part| top.max(part[0]));
    let mut total = 0.0;
    out.fill(0.0);
    for part in parts {
        let weight = exp(part[0] - top);
        total += weight * part[1];
        accumulate(out, &[weight], &part[2..]);
    }
    let norm = 1.0 / total;
    out.iter_mut().for_each(|out| *out *= norm);
}

/// Adds the weighted columns `from..from + N` of `values` `[weights, e]` to those of `out`.
#[inline(always)]
fn columns<const N: usize>(out: &mut [f32], from: usize, weights: &[f32], values: &[f32]) {
    let e = out.len();
    let out = &mut out[from..from + N];
    let mut lanes = [0f32; N];
    lanes.copy_from_slice(out);
    for (weight, row) in weights.iter().zip(values.chunks_exact(e)) {
        let row = &row[from..from + N];
        for lane in 0..N {
            lanes[lane] += weight * row[lane];
        }
    }
    out.copy_from_slice(&lanes);
}

for_each_level! {
    /// Products of the queries `[n, e]` with `keys` `[t, e]`, to `scores` `[n, t]` whose rows lie [`SPAN`] apart.
    fn products(scores: &mut [f32], queries: &[f32], keys: &[f32], e: usize) {
        for (query, scores) in queries.chunks_exact(e).zip(scores.chunks_mut(SPAN)) {
            for (score, key) in scores.iter_mut().zip(keys.chunks_exact(e)) {
                *score = dot(query, key);
            }
        }
    }

    /// Turns raw scores into e^(score - m) for the largest score m; returns m and their sum. The first key lies `distance`
    /// tokens before the query.
    fn weights(row: &mut [f32], scale: f32, slope: f32, distance: i32) -> (f32, f32) {
        for (j, score) in row.iter_mut().enumerate() {
            *score = *score * scale - slope * (distance - j as i32) as f32;
        }
        let top = max(row);
        (top, exp_shifted(row, top))
    }

    fn times(row: &mut [f32], scales: &[f32]) {
        for (value, scale) in row.iter_mut().zip(scales) {
            *value *= scale;
        }
    }

    /// Adds the weighted rows of `values` `[weights, e]` to `out` `[e]`, in order.
    fn accumulate(out: &mut [f32], weights: &[f32], values: &[f32]) {
        let e = out.len();
        let (wide, narrow) = (e / 64 * 64, e / 16 * 16);
        for from in (0..wide).step_by(64) {
            columns::<64>(out, from, weights, values);
        }
        for from in (wide..narrow).step_by(16) {
            columns::<16>(out, from, weights, values);
        }
        for from in narrow..e {
            columns::<1>(out, from, weights, values);
        }
    }
}
