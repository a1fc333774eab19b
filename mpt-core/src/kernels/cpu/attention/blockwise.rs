//! Attention among the tokens of a batch, forward and backward, one block of queries at a time.
//!
//! A block of [`BLOCK`] queries sees one contiguous range of keys, so that blocks of invisible keys are never computed. Memory is
//! [`BLOCK`] x keys per thread rather than seq x keys per head.

use std::ops::Range;

use rayon::prelude::*;

use super::{AttentionArgs, HeadsView, flush_negligible};
use crate::dtype::Precision;
use crate::kernels::cpu::activation::tanh;
use crate::kernels::cpu::dispatch::for_each_level;
use crate::kernels::cpu::gemm::{Beta, MatMut, MatRef, Parallelism, matmul};
use crate::kernels::cpu::math::{dot, exp, exp_shifted, max};
use crate::kernels::cpu::pool::{self, SharedPtr};
use crate::kernels::cpu::scratch::Scratch;

/// Queries of a block.
const BLOCK: usize = 64;

/// Blocks of `seq` queries.
fn query_blocks(seq: usize) -> impl Iterator<Item = Range<usize>> {
    (0..seq).step_by(BLOCK).map(move |from| from..(from + BLOCK).min(seq))
}

/// Writes the attention output `[b, s, h, e]` and the logarithm of each query's softmax denominator `[b, s, h]`.
pub(crate) fn forward(args: &AttentionArgs<'_>, qkv: [HeadsView<'_>; 3], out: &mut [f32], lse: &mut [f32]) {
    let (h, e, seq) = (args.n_heads, args.head_dim, args.seq);
    let out_blocks = out.chunks_mut(seq * h * e).flat_map(|out| out.chunks_mut(BLOCK * h * e));
    let lse_blocks = lse.chunks_mut(seq * h).flat_map(|lse| lse.chunks_mut(BLOCK * h));
    let blocks = (0..args.batch).flat_map(|batch| query_blocks(seq).map(move |rows| (batch, rows)));
    let tasks: Vec<_> = blocks.zip(out_blocks.zip(lse_blocks)).collect();
    tasks.into_par_iter().for_each(|((batch, rows), (out, lse))| {
        forward_block(args, batch, rows, qkv, out, lse);
    });
}

/// [`forward`] for one block of queries and all heads.
fn forward_block(
    args: &AttentionArgs<'_>,
    batch: usize,
    rows: Range<usize>,
    [q, k, v]: [HeadsView<'_>; 3],
    out: &mut [f32],
    lse: &mut [f32],
) {
    let (h, e) = (args.n_heads, args.head_dim);
    let keys = args.block_keys(batch, &rows);
    let (m, t) = (rows.len(), keys.len());
    let mut scores = Scratch::take(m * t, 0.0);
    for head in 0..h {
        let kv_head = head / (h / args.kv_n_heads);
        let queries = q.matrix(batch, rows.clone(), head, e);
        let keys_of_head = k.matrix(batch, keys.clone(), kv_head, e);
        multiply(MatMut::new(&mut scores, m, t, t), queries, keys_of_head.t(), args.precision, Beta::Zero);
        if let Some(cap) = args.cap {
            soft_cap(&mut scores, args.scale, cap);
        }
        for (i, row) in scores.chunks_exact_mut(t).enumerate() {
            let visible = args.visible(batch, rows.start + i);
            let seen = visible.start - keys.start..visible.end - keys.start;
            lse[i * h + head] = softmax(row, &seen, args.scale, args.slopes[head]);
            args.apply_dropout([batch, head, rows.start + i], visible.start, &mut row[seen]);
        }
        let (out, probs) = (MatMut::new(&mut out[head * e..], m, e, h * e), MatRef::new(&scores, m, t, t));
        multiply(out, probs, v.matrix(batch, keys.clone(), kv_head, e), args.precision, Beta::Zero);
    }
}

/// A matrix product on the calling thread.
fn multiply(c: MatMut<'_>, a: MatRef<'_>, b: MatRef<'_>, precision: Precision, beta: Beta) {
    matmul(c, a, b, precision, beta, Parallelism::Serial);
}

/// Results of the forward pass and the gradient of its output.
pub(crate) struct BackwardInputs<'a> {
    /// Output `[b, s, h, e]`, contiguous.
    pub(crate) out: &'a [f32],
    /// Logarithms of softmax denominators `[b, s, h]`, contiguous.
    pub(crate) lse: &'a [f32],
    /// Gradient of the output `[b, s, h, e]`, contiguous.
    pub(crate) d_out: &'a [f32],
}

/// Writes the gradients of queries, keys and values to `d_qkv` `[b, s, (h + 2 g) * e]`: at each position first all query heads,
/// then all keys, then all values.
///
/// # Panics
/// When `d_qkv` has another length.
pub(crate) fn backward(
    args: &AttentionArgs<'_>,
    qkv: [HeadsView<'_>; 3],
    inputs: &BackwardInputs<'_>,
    d_qkv: &mut [f32],
) {
    let (seq, e, h, g) = (args.seq, args.head_dim, args.n_heads, args.kv_n_heads);
    let (group, width) = (h / g, (h + 2 * g) * e);
    assert_eq!(d_qkv.len(), args.batch * seq * width, "gradients of all heads");
    let base = SharedPtr(d_qkv.as_mut_ptr());
    pool::run(args.batch * g, |task| {
        let (batch, kv_head) = (task / g, task % g);
        let store = |head: usize, from: &[f32]| {
            for (row, from) in from.chunks_exact(e).enumerate() {
                let at = (batch * seq + row) * width + head * e;
                #[expect(unsafe_code, reason = "tasks write parts of one slice")]
                // SAFETY: the position and head lie inside the slice, as checked above, and no other task has this
                // batch row and head.
                let to = unsafe { std::slice::from_raw_parts_mut(base.get().add(at), e) };
                to.copy_from_slice(from);
            }
        };
        let mut gradients = [(); 3].map(|()| Scratch::take(seq * e, 0.0));
        let [dq, dk, dv] = &mut gradients;
        dk.fill(0.0);
        dv.fill(0.0);
        for head in kv_head * group..(kv_head + 1) * group {
            backward_head(args, batch, (head, kv_head), qkv, inputs, [dq, dk, dv]);
            store(head, dq);
        }
        store(h + kv_head, dk);
        store(h + g + kv_head, dv);
    });
}

/// Gradients of one query head: writes `dq` `[s, e]`, adds to `dk` and `dv` `[s, e]`.
fn backward_head(
    args: &AttentionArgs<'_>,
    batch: usize,
    (head, kv_head): (usize, usize),
    [q, k, v]: [HeadsView<'_>; 3],
    inputs: &BackwardInputs<'_>,
    [dq, dk, dv]: [&mut [f32]; 3],
) {
    let (e, seq) = (args.head_dim, args.seq);
    let d_out = args.contiguous(inputs.d_out);
    let mut probs = Scratch::take(BLOCK.min(seq) * seq, 0.0);
    let mut d_scores = Scratch::take(BLOCK.min(seq) * seq, 0.0);
    for rows in query_blocks(seq) {
        let keys = args.block_keys(batch, &rows);
        let len = rows.len() * keys.len();
        let (probs, d_scores) = (&mut probs[..len], &mut d_scores[..len]);
        let block = BlockOperands {
            q: q.matrix(batch, rows.clone(), head, e),
            k: k.matrix(batch, keys.clone(), kv_head, e),
            v: v.matrix(batch, keys.clone(), kv_head, e),
            d_out: d_out.matrix(batch, rows.clone(), head, e),
            shape: [rows.len(), keys.len(), e],
            precision: args.precision,
        };
        block.scores(probs, d_scores);
        let cap_slopes = args.cap.map(|cap| {
            soft_cap(probs, args.scale, cap);
            cap_slopes(probs, args.scale, cap)
        });
        backward_softmax(args, [batch, head], (&rows, &keys), inputs, [probs, d_scores]);
        for (d_score, slope) in d_scores.iter_mut().zip(cap_slopes.iter().flatten()) {
            *d_score *= slope;
        }
        let range = keys.start * e..keys.end * e;
        let dq = &mut dq[rows.start * e..rows.end * e];
        block.gradients([probs, d_scores], [dq, &mut dk[range.clone()], &mut dv[range]]);
    }
}

/// Operands of one block of queries of one head: `q` and `d_out` `[m, e]`, `k` and `v` `[t, e]`.
struct BlockOperands<'a> {
    q: MatRef<'a>,
    k: MatRef<'a>,
    v: MatRef<'a>,
    d_out: MatRef<'a>,
    /// `[m, t, e]`.
    shape: [usize; 3],
    precision: Precision,
}

impl BlockOperands<'_> {
    /// Writes raw scores `Q K^T` and the gradient of probabilities `dO V^T`, both `[m, t]`.
    fn scores(&self, scores: &mut [f32], d_probs: &mut [f32]) {
        let [m, t, _] = self.shape;
        multiply(MatMut::new(scores, m, t, t), self.q, self.k.t(), self.precision, Beta::Zero);
        multiply(MatMut::new(d_probs, m, t, t), self.d_out, self.v.t(), self.precision, Beta::Zero);
    }

    /// Writes `dS K` to `dq` `[m, e]`, and adds `dS^T Q` to `dk` and `P^T dO` to `dv`, both `[t, e]`.
    fn gradients(&self, [probs, d_scores]: [&[f32]; 2], [dq, dk, dv]: [&mut [f32]; 3]) {
        let [m, t, e] = self.shape;
        let (probs, d_scores) = (MatRef::new(probs, m, t, t), MatRef::new(d_scores, m, t, t));
        multiply(MatMut::new(dq, m, e, e), d_scores, self.k, self.precision, Beta::Zero);
        multiply(MatMut::new(dk, t, e, e), d_scores.t(), self.q, self.precision, Beta::One);
        multiply(MatMut::new(dv, t, e, e), probs.t(), self.d_out, self.precision, Beta::One);
    }
}

/// Turns the raw scores of a block into probabilities and the gradient of the probabilities into that of the scores, both
/// `[rows, keys]`; the probabilities are those after dropout.
fn backward_softmax(
    args: &AttentionArgs<'_>,
    [batch, head]: [usize; 2],
    (rows, keys): (&Range<usize>, &Range<usize>),
    inputs: &BackwardInputs<'_>,
    [probs, d_scores]: [&mut [f32]; 2],
) {
    let (h, e, seq, t) = (args.n_heads, args.head_dim, args.seq, keys.len());
    let (out, d_out) = (args.contiguous(inputs.out), args.contiguous(inputs.d_out));
    let pairs = probs.chunks_exact_mut(t).zip(d_scores.chunks_exact_mut(t));
    for (row, (probs, d_scores)) in rows.clone().zip(pairs) {
        let visible = args.visible(batch, row);
        let seen = visible.start - keys.start..visible.end - keys.start;
        let lse = inputs.lse[(batch * seq + row) * h + head];
        let delta = dot(out.row(batch, row, head, e), d_out.row(batch, row, head, e));
        args.apply_dropout([batch, head, row], visible.start, &mut d_scores[seen.clone()]);
        softmax_backward(probs, d_scores, &seen, (args.scale, args.slopes[head]), (lse, delta));
        args.apply_dropout([batch, head, row], visible.start, &mut probs[seen]);
    }
}

/// Derivatives of [`soft_cap`] at capped scores.
fn cap_slopes(scores: &[f32], scale: f32, cap: f32) -> Vec<f32> {
    scores.iter().map(|score| 1.0 - (score * scale / cap) * (score * scale / cap)).collect()
}

/// `score * scale - slope * distance` of key `j` among `seen` keys, the last of which is the query itself.
#[inline(always)]
fn biased(score: f32, j: usize, seen: usize, scale: f32, slope: f32) -> f32 {
    score * scale - slope * (seen - 1 - j) as f32
}

for_each_level! {
    /// Caps raw scores: scaled, they become `cap * tanh(scaled / cap)`.
    pub(super) fn soft_cap(scores: &mut [f32], scale: f32, cap: f32) {
        let (inner, outer) = (scale / cap, cap / scale);
        for score in scores {
            *score = outer * tanh(*score * inner);
        }
    }

    /// Softmax of the `seen` part of a row of raw scores, 0 elsewhere; returns the logarithm of the denominator.
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
            *value = flush_negligible(*value * norm);
        }
        top + total.ln()
    }

    /// Turns a row of raw scores into probabilities, and the gradient of the probabilities into that of the raw scores.
    ///
    /// `bias` is (scale, slope); `saved` is the logarithm of the denominator and the dot product of output and its gradient.
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
            *prob = flush_negligible(exp(biased(*prob, j, n, scale, slope) - lse));
            *d_score = *prob * (*d_score - delta) * scale;
        }
    }
}
