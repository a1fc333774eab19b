//! Paged attention: causal attention with ALiBi over pages of keys and values, with one arithmetic for one query and thousands.
//!
//! The bits of a query's output depend on its own sequence alone. The cuts of its prompt, the rest of the batch, the pages of its
//! keys and the number of threads change nothing, since every sum has one order, given by the positions of keys:
//!
//! - Keys are cut into spans of [`SPAN`], counted from key 0 of the sequence. Within a span, a score is the sum of products in the
//!   order of the head's elements (`micro_gemm`), then scaled, capped and biased. m is the largest visible score, e^(score - m) the
//!   weight of a key, and l the sum of weights in sixteen lanes (key j in lane j mod 16). Weighted values are summed in the order
//!   of keys (`micro_gemm`).
//! - Spans are merged in order from the first visible one: the sum so far is rescaled to the larger m and the next span is added
//!   (`softmax`).
//!
//! Levels with fused multiply-add round products otherwise than levels without, so results differ between them.
//!
//! Few queries are bound by reading pages: each of their spans is a task, and the partial results are merged (split-KV, as in
//! Flash-Decoding). Many queries are bound by arithmetic: a task is a block of queries over all of its spans, which converts each
//! page to f32 once.
//!
//! Legend: h heads, g key/value heads, e head_dim; partial: weighted values, m and l of one query and span.
//!
//! Source: Milakov and Gimelshein 2018, section 3 (merging); Kwon et al. 2023, section 4 (pages).

mod kv_convert;
mod layout;
mod micro_gemm;
mod plan;
mod softmax;
mod span;
mod store;

use std::ops::Range;

pub(crate) use layout::{LayerPages, PAGE, PageLayout};
pub(crate) use store::{HeadRows, TokenRun, read_kv, write_kv};

use plan::{MergeTask, Plan, Task};
use softmax::{merge, normalize, partial_len};
use span::{TaskQueries, Workspace};

use crate::kernels::cpu::dispatch::Level;
use crate::kernels::cpu::pool::{self, SharedPtr};
use crate::kernels::cpu::scratch::Scratch;

/// Keys of a span.
const SPAN: usize = 512;

/// Keys, values and constants of one call.
#[derive(Clone, Copy)]
pub(crate) struct PagedAttentionArgs<'a> {
    pub(crate) n_heads: usize,
    pub(crate) pages: LayerPages<'a>,
    pub(crate) scale: f32,
    /// Soft cap of the scaled scores, before the bias.
    pub(crate) cap: Option<f32>,
    /// One slope per head; all zero without ALiBi.
    pub(crate) slopes: &'a [f32],
    pub(crate) sequences: &'a [SequenceView<'a>],
    /// First visible key of each query token in its sequence, `[tokens]`; at most the token itself.
    pub(crate) first_key: &'a [u32],
}

/// Sequence with its new tokens, whose keys and values are in its pages.
#[derive(Clone, Debug)]
pub(crate) struct SequenceView<'a> {
    /// Page table, first to last.
    pub(crate) pages: &'a [u32],
    /// Tokens before the new ones.
    pub(crate) start: usize,
    /// Positions of the new tokens in the batch.
    pub(crate) tokens: Range<usize>,
}

impl PagedAttentionArgs<'_> {
    /// Query heads that share a key/value head.
    fn group(&self) -> usize {
        self.n_heads / self.pages.layout.kv_n_heads
    }

    /// Visible keys of a token: never empty, since it sees itself.
    fn visible(&self, sequence: &SequenceView<'_>, token: usize) -> Range<usize> {
        self.first_key[token] as usize..sequence.start + token - sequence.tokens.start + 1
    }

    /// Spans visible to any of `tokens`.
    fn spans(&self, sequence: &SequenceView<'_>, tokens: &Range<usize>) -> Range<usize> {
        let first = tokens.clone().map(|token| self.first_key[token]).min().unwrap_or(0) as usize;
        first / SPAN..self.visible(sequence, tokens.end - 1).end.div_ceil(SPAN)
    }
}

/// Writes the attention output `[tokens, h, e]` of the queries `q` `[tokens, h, e]`.
///
/// # Panics
/// When `out` has another length.
pub(crate) fn forward(level: Level, args: &PagedAttentionArgs<'_>, q: HeadRows<'_>, out: &mut [f32]) {
    let layout = &args.pages.layout;
    let width = args.n_heads * layout.head_dim;
    assert_eq!(out.len(), args.first_key.len() * width, "an output for every token and head");
    let (plan, partial_len) = (Plan::new(args), partial_len(layout));
    let out = Output { base: SharedPtr(out.as_mut_ptr()), width, head_dim: layout.head_dim };
    let mut partials = Scratch::take(plan.partials() * partial_len, 0f32);
    let base = SharedPtr(partials.as_mut_ptr());
    pool::run(plan.tasks.len(), |index| {
        let task = &plan.tasks[index];
        let queries = TaskQueries::new(level, args, task, q);
        let mut workspace = Workspace::new(&queries);
        match task.partials {
            Some(first) => {
                #[expect(unsafe_code, reason = "tasks write parts of one slice")]
                // SAFETY: the plan gives its tasks consecutive partials, and `partials` holds them all.
                let partials = unsafe {
                    let from = base.get().add(first * partial_len);
                    std::slice::from_raw_parts_mut(from, queries.len() * partial_len)
                };
                queries.attend_span(task.spans.start, &mut workspace, partials);
            }
            None => attend_all_spans(&queries, task, &mut workspace, out),
        }
    });
    pool::run(plan.merges.len(), |index| merge_spans(args, &plan.merges[index], &partials, partial_len, out));
}

/// The output of all tokens and heads; each element is written by one task.
#[derive(Clone, Copy)]
struct Output {
    base: SharedPtr<f32>,
    /// Elements of a token.
    width: usize,
    head_dim: usize,
}

impl Output {
    /// Writes the output of one token and head, the normalized sum of its spans.
    fn write(self, token: usize, head: usize, sum: &[f32]) {
        let at = token * self.width + head * self.head_dim;
        #[expect(unsafe_code, reason = "tasks write parts of one slice")]
        // SAFETY: token and head lie inside the slice, as `forward` checked, and the plan gives them to one task alone.
        let out = unsafe { std::slice::from_raw_parts_mut(self.base.get().add(at), self.head_dim) };
        normalize(sum, out);
    }
}

/// Attends to all spans of a task and writes its outputs.
fn attend_all_spans(queries: &TaskQueries<'_>, task: &Task, workspace: &mut Workspace, out: Output) {
    let (partial_len, len) = (queries.partial_len(), queries.len() * queries.partial_len());
    let (mut sums, mut partials) = (Scratch::take(len, 0f32), Scratch::take(len, 0f32));
    queries.attend_span(task.spans.start, workspace, &mut sums);
    for span in task.spans.start + 1..task.spans.end {
        queries.attend_span(span, workspace, &mut partials);
        let pairs = sums.chunks_exact_mut(partial_len).zip(partials.chunks_exact(partial_len));
        pairs.for_each(|(sum, partial)| merge(sum, partial));
    }
    for (query, sum) in sums.chunks_exact(partial_len).enumerate() {
        let (token, head) = queries.token_and_head(query);
        out.write(token, head, sum);
    }
}

/// Merges the partials of all spans of some queries and writes their outputs.
fn merge_spans(
    args: &PagedAttentionArgs<'_>,
    task: &MergeTask,
    partials: &[f32],
    partial_len: usize,
    out: Output,
) {
    let mut sum = Scratch::take(partial_len, 0f32);
    for query in 0..task.queries {
        let partial = |span: usize| {
            &partials[(task.first + span * task.queries + query) * partial_len..][..partial_len]
        };
        sum.copy_from_slice(partial(0));
        (1..task.spans).for_each(|span| merge(&mut sum, partial(span)));
        let (token, head) = task.token_and_head(args, query);
        out.write(token, head, &sum);
    }
}
