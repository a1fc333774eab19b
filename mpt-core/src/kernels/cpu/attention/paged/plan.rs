//! Which tasks a call has.

use std::ops::Range;

use super::{Call, Sequence};

/// New tokens of a sequence up to which every span is a task.
const FEW: usize = 8;

/// Queries of a task of many: as many as leave their scores of a span in the second-level cache.
const BLOCK: usize = 60;

/// Tasks whose results do not depend on each other, and what is left to merge.
pub(super) struct Plan {
    /// The longest first.
    pub(super) tasks: Vec<Task>,
    pub(super) merges: Vec<Split>,
    parts: usize,
}

/// Some tokens of one sequence with one key/value head.
pub(super) struct Task {
    /// Index of the sequence.
    pub(super) sequence: usize,
    pub(super) kv_head: usize,
    pub(super) tokens: Range<usize>,
    pub(super) spans: Range<usize>,
    /// Where the parts of its queries begin if its one span is to be merged with others.
    pub(super) parts: Option<usize>,
}

/// Queries whose spans were tasks: the parts of all queries of the first span, then those of the second.
pub(super) struct Split {
    pub(super) kv_head: usize,
    pub(super) first_token: usize,
    pub(super) first: usize,
    pub(super) queries: usize,
    pub(super) spans: usize,
}

impl Split {
    /// Token and head of a query.
    pub(super) fn place(&self, call: &Call<'_>, query: usize) -> (usize, usize) {
        place(call, self.first_token, self.kv_head, query)
    }
}

/// Token and head of a query of a task: the heads of a token are neighbors.
pub(super) fn place(call: &Call<'_>, first_token: usize, kv_head: usize, query: usize) -> (usize, usize) {
    let group = call.group();
    (first_token + query / group, kv_head * group + query % group)
}

impl Plan {
    pub(super) fn new(call: &Call<'_>) -> Self {
        let mut plan = Self { tasks: Vec::new(), merges: Vec::new(), parts: 0 };
        let is_split = |sequence: &Sequence<'_>| {
            sequence.tokens.len() <= FEW && call.spans(sequence, &sequence.tokens).len() > 1
        };
        for (index, sequence) in call.sequences.iter().enumerate().filter(|(_, sequence)| !is_split(sequence))
        {
            plan.blocks(call, index, sequence);
        }
        for (index, sequence) in call.sequences.iter().enumerate().filter(|(_, sequence)| is_split(sequence))
        {
            plan.split(call, index, sequence);
        }
        plan
    }

    /// Parts of all tasks.
    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    /// Blocks of tokens over all of their spans, the last and longest first.
    fn blocks(&mut self, call: &Call<'_>, index: usize, sequence: &Sequence<'_>) {
        let len = (BLOCK / call.group()).max(1);
        for block in (0..sequence.tokens.len().div_ceil(len)).rev() {
            let from = sequence.tokens.start + block * len;
            let tokens = from..(from + len).min(sequence.tokens.end);
            let spans = call.spans(sequence, &tokens);
            for kv_head in 0..call.pages.layout.kv_n_heads {
                let (tokens, spans) = (tokens.clone(), spans.clone());
                self.tasks.push(Task { sequence: index, kv_head, tokens, spans, parts: None });
            }
        }
    }

    /// All tokens over each of their spans.
    fn split(&mut self, call: &Call<'_>, index: usize, sequence: &Sequence<'_>) {
        let (tokens, spans) = (&sequence.tokens, call.spans(sequence, &sequence.tokens));
        let queries = tokens.len() * call.group();
        for kv_head in 0..call.pages.layout.kv_n_heads {
            let (first, first_token) = (self.parts, tokens.start);
            self.merges.push(Split { kv_head, first_token, first, queries, spans: spans.len() });
            for span in spans.clone() {
                let (tokens, spans, parts) = (tokens.clone(), span..span + 1, Some(self.parts));
                self.tasks.push(Task { sequence: index, kv_head, tokens, spans, parts });
                self.parts += queries;
            }
        }
    }
}
