//! Plan of a call: its tasks, and the partial results to merge.

use std::ops::Range;

use super::{PagedAttentionArgs, SequenceView};

/// New tokens of a sequence up to which each span is a task of its own.
const MAX_SPLIT_TOKENS: usize = 8;

/// Queries of a task over all spans: their scores of a span fit the second-level cache.
const TASK_QUERIES: usize = 60;

/// Independent tasks, and the merges that follow them.
pub(super) struct Plan {
    /// Tasks, longest first.
    pub(super) tasks: Vec<Task>,
    pub(super) merges: Vec<MergeTask>,
    partials: usize,
}

/// Tokens of one sequence with one key/value head.
pub(super) struct Task {
    /// Index of the sequence.
    pub(super) sequence: usize,
    pub(super) kv_head: usize,
    pub(super) tokens: Range<usize>,
    pub(super) spans: Range<usize>,
    /// First partial of its queries when its single span is merged with others.
    pub(super) partials: Option<usize>,
}

/// Merge of queries with one task a span: the partials of all queries for the first span, then those for the second.
pub(super) struct MergeTask {
    pub(super) kv_head: usize,
    pub(super) first_token: usize,
    /// First partial.
    pub(super) first: usize,
    pub(super) queries: usize,
    pub(super) spans: usize,
}

impl MergeTask {
    /// Token and head of a query.
    pub(super) fn token_and_head(&self, args: &PagedAttentionArgs<'_>, query: usize) -> (usize, usize) {
        token_and_head(args, self.first_token, self.kv_head, query)
    }
}

/// Token and head of a query of a task, which has all heads of a token side by side.
pub(super) fn token_and_head(
    args: &PagedAttentionArgs<'_>,
    first_token: usize,
    kv_head: usize,
    query: usize,
) -> (usize, usize) {
    let group = args.group();
    (first_token + query / group, kv_head * group + query % group)
}

impl Plan {
    pub(super) fn new(args: &PagedAttentionArgs<'_>) -> Self {
        let mut plan = Self { tasks: Vec::new(), merges: Vec::new(), partials: 0 };
        let is_split = |sequence: &SequenceView<'_>| {
            sequence.tokens.len() <= MAX_SPLIT_TOKENS && args.spans(sequence, &sequence.tokens).len() > 1
        };
        for (index, sequence) in args.sequences.iter().enumerate().filter(|(_, sequence)| !is_split(sequence))
        {
            plan.add_blocks(args, index, sequence);
        }
        for (index, sequence) in args.sequences.iter().enumerate().filter(|(_, sequence)| is_split(sequence))
        {
            plan.add_split(args, index, sequence);
        }
        plan
    }

    /// Number of partials of all tasks.
    pub(super) fn partials(&self) -> usize {
        self.partials
    }

    /// Adds blocks of tokens over all of their spans, the last and longest first.
    fn add_blocks(&mut self, args: &PagedAttentionArgs<'_>, index: usize, sequence: &SequenceView<'_>) {
        let len = (TASK_QUERIES / args.group()).max(1);
        for block in (0..sequence.tokens.len().div_ceil(len)).rev() {
            let from = sequence.tokens.start + block * len;
            let tokens = from..(from + len).min(sequence.tokens.end);
            let spans = args.spans(sequence, &tokens);
            for kv_head in 0..args.pages.layout.kv_n_heads {
                let (tokens, spans) = (tokens.clone(), spans.clone());
                self.tasks.push(Task { sequence: index, kv_head, tokens, spans, partials: None });
            }
        }
    }

    /// Adds a task for each span, over all tokens, and the merges.
    fn add_split(&mut self, args: &PagedAttentionArgs<'_>, index: usize, sequence: &SequenceView<'_>) {
        let (tokens, spans) = (&sequence.tokens, args.spans(sequence, &sequence.tokens));
        let queries = tokens.len() * args.group();
        for kv_head in 0..args.pages.layout.kv_n_heads {
            let (first, first_token) = (self.partials, tokens.start);
            self.merges.push(MergeTask { kv_head, first_token, first, queries, spans: spans.len() });
            for span in spans.clone() {
                let (tokens, spans, partials) = (tokens.clone(), span..span + 1, Some(self.partials));
                self.tasks.push(Task { sequence: index, kv_head, tokens, spans, partials });
                self.partials += queries;
            }
        }
    }
}
