//! Attention forward and backward by blocks of queries.
//!
//! Queries are taken in blocks of [`BLOCK`] rows; a block sees one contiguous range of keys, so blocks of keys that
//! no row may see are never touched, and memory is [`BLOCK`] x keys per thread, not seq x keys per head.

use std::ops::Range;

use rayon::prelude::*;

use super::{Heads, Shape, negligible_to_zero};
use crate::kernels::cpu::activation::tanh;
use crate::kernels::cpu::dispatch::for_each_level;
use crate::kernels::cpu::gemm::{Mat, MatMut, Threads, Write, matmul};
use crate::kernels::cpu::math::{dot, exp, exp_shifted, max};
use crate::kernels::cpu::pool::{self, Shared};
use crate::kernels::cpu::scratch::Scratch;

/// Query rows of a block.
const BLOCK: usize = 64;

/// The blocks of `seq` queries.
fn blocks(seq: usize) -> impl Iterator<Item = Range<usize>> {
    (0..seq).step_by(BLOCK).map(move |from| from..(from + BLOCK).min(seq))
}

/// Writes the attention output `[b, s, h, e]` and, per query, the logarithm of its softmax denominator `[b, s, h]`.
pub(crate) fn forward(shape: &Shape<'_>, qkv: [Heads<'_>; 3], out: &mut [f32], lse: &mut [f32]) {
    let (h, e, seq) = (shape.n_heads, shape.head_dim, shape.seq);
    let rows_of_out = out.chunks_mut(seq * h * e).flat_map(|of_batch| of_batch.chunks_mut(BLOCK * h * e));
    let rows_of_lse = lse.chunks_mut(seq * h).flat_map(|of_batch| of_batch.chunks_mut(BLOCK * h));
    let blocks = (0..shape.batch).flat_map(|batch| blocks(seq).map(move |rows| (batch, rows)));
    let tasks: Vec<_> = blocks.zip(rows_of_out.zip(rows_of_lse)).collect();
    tasks.into_par_iter().for_each(|((batch, rows), (out, lse))| {
        forward_block(shape, batch, rows, qkv, out, lse);
    });
}

fn forward_block(
    shape: &Shape<'_>,
    batch: usize,
    rows: Range<usize>,
    [q, k, v]: [Heads<'_>; 3],
    out: &mut [f32],
    lse: &mut [f32],
) {
    let (h, e) = (shape.n_heads, shape.head_dim);
    let keys = shape.block_keys(batch, &rows);
    let (m, t) = (rows.len(), keys.len());
    let mut scores = Scratch::take(m * t, 0.0);
    for head in 0..h {
        let kv_head = head / (h / shape.kv_n_heads);
        let queries = q.matrix(batch, rows.clone(), head, e);
        let keys_of_head = k.matrix(batch, keys.clone(), kv_head, e);
        let products = MatMut::new(&mut scores, m, t, t);
        matmul(products, queries, keys_of_head.t(), shape.precision, Write::Overwrite, Threads::Caller);
        if let Some(cap) = shape.cap {
            soft_cap(&mut scores, shape.scale, cap);
        }
        for (i, row) in scores.chunks_exact_mut(t).enumerate() {
            let visible = shape.visible(batch, rows.start + i);
            let seen = visible.start - keys.start..visible.end - keys.start;
            lse[i * h + head] = softmax(row, &seen, shape.scale, shape.slopes[head]);
            shape.drop_weights([batch, head, rows.start + i], visible.start, &mut row[seen]);
        }
        let (out, probs) = (MatMut::new(&mut out[head * e..], m, e, h * e), Mat::new(&scores, m, t, t));
        let values = v.matrix(batch, keys.clone(), kv_head, e);
        matmul(out, probs, values, shape.precision, Write::Overwrite, Threads::Caller);
    }
}

/// What the backward pass needs from the forward pass, and the gradient of its output.
pub(crate) struct Saved<'a> {
    /// `[b, s, h, e]`, contiguous.
    pub(crate) out: &'a [f32],
    /// `[b, s, h]`, contiguous.
    pub(crate) lse: &'a [f32],
    /// `[b, s, h, e]`, contiguous.
    pub(crate) d_out: &'a [f32],
}

/// Writes the gradients of queries, keys and values, `[b, s, (h + 2 g) * e]`: at each position those of all query heads, then
/// of all keys, then of all values. Queries and keys are the same positions.
pub(crate) fn backward(shape: &Shape<'_>, qkv: [Heads<'_>; 3], saved: &Saved<'_>, d_qkv: &mut [f32]) {
    let (seq, e, h, g) = (shape.seq, shape.head_dim, shape.n_heads, shape.kv_n_heads);
    let (group, width) = (h / g, (h + 2 * g) * e);
    assert_eq!(d_qkv.len(), shape.batch * seq * width, "gradients of all heads");
    let base = Shared(d_qkv.as_mut_ptr());
    pool::run(shape.batch * g, |task| {
        let (batch, kv_head) = (task / g, task % g);
        let place = |head: usize, from: &[f32]| {
            for (row, from) in from.chunks_exact(e).enumerate() {
                let at = (batch * seq + row) * width + head * e;
                #[expect(unsafe_code, reason = "tasks write parts of one slice")]
                // SAFETY: the position and head lie inside the slice, as checked above, and no other task has this
                // batch row and head.
                let to = unsafe { std::slice::from_raw_parts_mut(base.get().add(at), e) };
                to.copy_from_slice(from);
            }
        };
        let mut sums = [(); 3].map(|()| Scratch::take(seq * e, 0.0));
        let [dq, dk, dv] = &mut sums;
        dk.fill(0.0);
        dv.fill(0.0);
        for head in kv_head * group..(kv_head + 1) * group {
            backward_head(shape, batch, (head, kv_head), qkv, saved, [dq, dk, dv]);
            place(head, dq);
        }
        place(h + kv_head, dk);
        place(h + g + kv_head, dv);
    });
}

/// One query head: writes `dq` `[s, e]`, adds to `dk` and `dv` `[s, e]`.
fn backward_head(
    shape: &Shape<'_>,
    batch: usize,
    (head, kv_head): (usize, usize),
    [q, k, v]: [Heads<'_>; 3],
    saved: &Saved<'_>,
    [dq, dk, dv]: [&mut [f32]; 3],
) {
    let (h, e, seq) = (shape.n_heads, shape.head_dim, shape.seq);
    let contiguous = |data| Heads { data, batch_stride: seq * h * e, row_stride: h * e };
    let (out, d_out) = (contiguous(saved.out), contiguous(saved.d_out));
    let mut probs = Scratch::take(BLOCK.min(seq) * seq, 0.0);
    let mut d_scores = Scratch::take(BLOCK.min(seq) * seq, 0.0);
    for rows in blocks(seq) {
        let keys = shape.block_keys(batch, &rows);
        let (m, t) = (rows.len(), keys.len());
        let (probs, d_scores) = (&mut probs[..m * t], &mut d_scores[..m * t]);
        let queries = q.matrix(batch, rows.clone(), head, e);
        let keys_of_head = k.matrix(batch, keys.clone(), kv_head, e);
        let values = v.matrix(batch, keys.clone(), kv_head, e);
        let d_rows = d_out.matrix(batch, rows.clone(), head, e);
        matmul(
            MatMut::new(probs, m, t, t),
            queries,
            keys_of_head.t(),
            shape.precision,
            Write::Overwrite,
            Threads::Caller,
        );
        matmul(
            MatMut::new(d_scores, m, t, t),
            d_rows,
            values.t(),
            shape.precision,
            Write::Overwrite,
            Threads::Caller,
        );
        let cap_slopes = shape.cap.map(|cap| {
            soft_cap(probs, shape.scale, cap);
            let slope = |score: &f32| 1.0 - (score * shape.scale / cap) * (score * shape.scale / cap);
            probs.iter().map(slope).collect::<Vec<f32>>()
        });
        for (i, (probs, d_scores)) in probs.chunks_exact_mut(t).zip(d_scores.chunks_exact_mut(t)).enumerate()
        {
            let row = rows.start + i;
            let visible = shape.visible(batch, row);
            let seen = visible.start - keys.start..visible.end - keys.start;
            let lse = saved.lse[(batch * seq + row) * h + head];
            let delta = dot(out.row(batch, row, head, e), d_out.row(batch, row, head, e));
            shape.drop_weights([batch, head, row], visible.start, &mut d_scores[seen.clone()]);
            softmax_backward(probs, d_scores, &seen, (shape.scale, shape.slopes[head]), (lse, delta));
            shape.drop_weights([batch, head, row], visible.start, &mut probs[seen]);
        }
        for (d_score, slope) in d_scores.iter_mut().zip(cap_slopes.iter().flatten()) {
            *d_score *= slope;
        }
        let (probs, d_scores) = (Mat::new(probs, m, t, t), Mat::new(d_scores, m, t, t));
        let range = keys.start * e..keys.end * e;
        let dq = MatMut::new(&mut dq[rows.start * e..rows.end * e], m, e, e);
        matmul(dq, d_scores, keys_of_head, shape.precision, Write::Overwrite, Threads::Caller);
        matmul(
            MatMut::new(&mut dk[range.clone()], t, e, e),
            d_scores.t(),
            queries,
            shape.precision,
            Write::Add,
            Threads::Caller,
        );
        matmul(
            MatMut::new(&mut dv[range], t, e, e),
            probs.t(),
            d_rows,
            shape.precision,
            Write::Add,
            Threads::Caller,
        );
    }
}

/// score * scale + slope * (key - query): the last seen key is the query itself.
#[inline(always)]
fn biased(score: f32, j: usize, seen: usize, scale: f32, slope: f32) -> f32 {
    score * scale - slope * (seen - 1 - j) as f32
}

for_each_level! {
    /// Bounds raw scores so that, scaled, they are `cap * tanh(score / cap)`.
    pub(super) fn soft_cap(scores: &mut [f32], scale: f32, cap: f32) {
        let (inner, outer) = (scale / cap, cap / scale);
        for score in scores {
            *score = outer * tanh(*score * inner);
        }
    }

    /// Softmax of the `seen` part of a row of raw scores, 0 elsewhere; returns the log of the denominator.
    fn softmax(row: &mut [f32], seen: &Range<usize>, scale: f32, slope: f32) -> f32 {
        row[..seen.start].fill(0.0);
        row[seen.end..].fill(0.0);
        let row = &mut row[seen.clone()];
        let n = row.len();
        for (j, value) in row.iter_mut().enumerate() {
            *value = biased(*value, j, n, scale, slope);
        }
        let top = max(row);
        let total = exp_shifted(row, top);
        let norm = 1.0 / total;
        for value in row.iter_mut() {
            *value = negligible_to_zero(*value * norm);
        }
        top + total.ln()
    }

    /// Turns raw scores into probabilities and the gradient of the probabilities into the gradient of raw scores.
    fn softmax_backward(probs: &mut [f32], d_scores: &mut [f32], seen: &Range<usize>,
                        bias: (f32, f32), saved: (f32, f32)) {
        let ((scale, slope), (lse, delta)) = (bias, saved);
        for row in [&mut *probs, &mut *d_scores] {
            row[..seen.start].fill(0.0);
            row[seen.end..].fill(0.0);
        }
        let n = seen.len();
        let pairs = probs[seen.clone()].iter_mut().zip(&mut d_scores[seen.clone()]);
        for (j, (prob, d_score)) in pairs.enumerate() {
            *prob = negligible_to_zero(exp(biased(*prob, j, n, scale, slope) - lse));
            *d_score = *prob * (*d_score - delta) * scale;
        }
    }
}
