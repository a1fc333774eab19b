//! Causal attention with ALiBi over pages of keys and values: one arithmetic for one query and for thousands.
//!
//! The bits that a query gives depend on its own sequence alone: on the query, and on the keys and values that it sees.
//! How its prompt was cut, what lies beside it in the batch, which pages hold its keys and how many threads work change
//! nothing, since every sum has one order that the positions of keys give:
//!
//! - Keys are cut into spans of [`SPAN`], counted from key 0 of the sequence. Within a span a score is the sum of products
//!   in the order of the head's numbers (`product`), scaled, capped and biased; m is the largest score that the query sees,
//!   the weight of a key e^(score - m), l the sum of weights by sixteen lanes (key j in lane j mod 16), and the weighted
//!   values are summed in the order of keys (`product` again).
//! - Spans are merged in order, from the first that the query sees: what was summed is scaled to the larger m, and the next
//!   span added (`softmax`).
//!
//! A level with fused multiply-add rounds products otherwise than one without, so that levels differ; within one they do not.
//!
//! Few queries are bound by reading pages: their spans are tasks of their own, which leave parts to be merged. Many
//! queries are bound by arithmetic: a task is a block of queries over all of its spans, which widens a page once for all.
//!
//! Legend: h heads, g key/value heads, e head_dim, part: the weighted values, m and l of one query and span.
//!
//! Source of parts and their merging: Milakov and Gimelshein 2018, section 3; of pages: Kwon et al. 2023, section 4.

mod layout;
mod narrow;
mod plan;
mod product;
mod softmax;
mod span;
mod store;

use std::ops::Range;

pub(crate) use layout::{PAGE, PageLayout, Pages};
pub(crate) use store::{HeadRows, Run, read, write};

use super::super::dispatch::Level;
use super::super::pool::{self, Shared};
use super::super::scratch::Scratch;
use plan::{Plan, Task};
use softmax::{finish, merge, part_len};
use span::{Queries, Space};

/// Keys of a span.
const SPAN: usize = 512;

/// What one call attends with and to.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) n_heads: usize,
    pub(crate) pages: Pages<'a>,
    pub(crate) scale: f32,
    /// Soft bound on the scaled scores, before the bias.
    pub(crate) cap: Option<f32>,
    /// One slope per head; all zero without ALiBi.
    pub(crate) slopes: &'a [f32],
    pub(crate) sequences: &'a [Sequence<'a>],
    /// First key that each query token sees, `[tokens]`, in its sequence; at most the token itself.
    pub(crate) first_key: &'a [u32],
}

/// A sequence and its new tokens, whose keys and values are in its pages.
#[derive(Clone, Debug)]
pub(crate) struct Sequence<'a> {
    /// Its pages, first to last.
    pub(crate) pages: &'a [u32],
    /// Tokens before the new ones.
    pub(crate) start: usize,
    /// The new tokens among those of the batch.
    pub(crate) tokens: Range<usize>,
}

impl Call<'_> {
    /// Query heads that share a key/value head.
    fn group(&self) -> usize {
        self.n_heads / self.pages.layout.kv_n_heads
    }

    /// The keys that a token sees: never empty, since it sees itself.
    fn visible(&self, sequence: &Sequence<'_>, token: usize) -> Range<usize> {
        self.first_key[token] as usize..sequence.start + token - sequence.tokens.start + 1
    }

    /// The spans that any of some tokens sees.
    fn spans(&self, sequence: &Sequence<'_>, tokens: &Range<usize>) -> Range<usize> {
        let first = tokens.clone().map(|token| self.first_key[token]).min().unwrap_or(0) as usize;
        first / SPAN..self.visible(sequence, tokens.end - 1).end.div_ceil(SPAN)
    }
}

/// Writes the attention output `[tokens, h, e]` of queries `[tokens, h, e]`.
pub(crate) fn forward(level: Level, call: &Call<'_>, q: HeadRows<'_>, out: &mut [f32]) {
    let (e, width) = (call.pages.layout.head_dim, call.n_heads * call.pages.layout.head_dim);
    assert_eq!(out.len(), call.first_key.len() * width, "an output for every token and head");
    let plan = Plan::new(call);
    let part_len = part_len(&call.pages.layout);
    let mut parts = Scratch::take(plan.parts() * part_len, 0f32);
    let (base, parts_base) = (Shared(out.as_mut_ptr()), Shared(parts.as_mut_ptr()));
    let write = |token: usize, head: usize, part: &[f32]| {
        #[expect(unsafe_code, reason = "tasks write parts of one slice")]
        // SAFETY: token and head lie inside the slice, as checked above, and the plan gives them to one task alone.
        let out = unsafe { std::slice::from_raw_parts_mut(base.get().add(token * width + head * e), e) };
        finish(part, out);
    };
    pool::run(plan.tasks.len(), |index| {
        let task = &plan.tasks[index];
        let queries = Queries::new(level, call, task, q);
        let mut space = Space::new(&queries);
        match task.parts {
            Some(first) => {
                #[expect(unsafe_code, reason = "tasks write parts of one slice")]
                // SAFETY: the plan counts the parts of its tasks one behind the other, and `parts` holds them all.
                let parts = unsafe {
                    let from = parts_base.get().add(first * part_len);
                    std::slice::from_raw_parts_mut(from, queries.len() * part_len)
                };
                queries.span(task.spans.start, &mut space, parts);
            }
            None => whole(&queries, task, &mut space, &write),
        }
    });
    pool::run(plan.merges.len(), |index| {
        let split = &plan.merges[index];
        let mut sum = Scratch::take(part_len, 0f32);
        for query in 0..split.queries {
            let part =
                |span: usize| &parts[(split.first + span * split.queries + query) * part_len..][..part_len];
            sum.copy_from_slice(part(0));
            (1..split.spans).for_each(|span| merge(&mut sum, part(span)));
            let (token, head) = split.place(call, query);
            write(token, head, &sum);
        }
    });
}

/// Attends to all spans of a task and writes its outputs.
fn whole(queries: &Queries<'_>, task: &Task, space: &mut Space, write: &impl Fn(usize, usize, &[f32])) {
    let (part_len, len) = (queries.part_len(), queries.len() * queries.part_len());
    let (mut sums, mut parts) = (Scratch::take(len, 0f32), Scratch::take(len, 0f32));
    queries.span(task.spans.start, space, &mut sums);
    for span in task.spans.start + 1..task.spans.end {
        queries.span(span, space, &mut parts);
        let pairs = sums.chunks_exact_mut(part_len).zip(parts.chunks_exact(part_len));
        pairs.for_each(|(sum, part)| merge(sum, part));
    }
    for (query, sum) in sums.chunks_exact(part_len).enumerate() {
        let (token, head) = queries.place(query);
        write(token, head, sum);
    }
}
