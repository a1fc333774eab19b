//! Queries of one sequence and key/value head over one span of keys.

use std::ops::Range;

use super::layout::{KvBlock, KvKind, KvSlice, LANES, PAGE};
use super::micro_gemm::{MicroGemm, max_queries};
use super::plan::{Task, token_and_head};
use super::softmax::{RowScoreParams, partial_len, softmax_weights};
use super::store::HeadRows;
use super::{PagedAttentionArgs, SPAN, SequenceView};
use crate::kernels::cpu::dispatch::Level;
use crate::kernels::cpu::scratch::Scratch;

/// The queries of a task.
pub(super) struct TaskQueries<'a> {
    level: Level,
    args: &'a PagedAttentionArgs<'a>,
    sequence: &'a SequenceView<'a>,
    kv_head: usize,
    tokens: Range<usize>,
    /// Queries of a tile, which one product takes.
    tile: usize,
    /// Queries `[queries, e]`.
    data: Scratch<f32>,
}

/// Buffers of a task.
pub(super) struct Workspace {
    /// Scores, then weights, `[queries, SPAN]`.
    scores: Scratch<f32>,
    /// Elements of a page as f32.
    page: Scratch<f32>,
    /// Scales of the span's keys and values, where the dtype has them.
    scales: [Scratch<f32>; 2],
}

impl Workspace {
    pub(super) fn new(queries: &TaskQueries<'_>) -> Self {
        Self {
            scores: Scratch::take(queries.len() * SPAN, 0f32),
            page: Scratch::take(PAGE * queries.args.pages.layout.value_stride(), 0f32),
            scales: [(); 2].map(|()| Scratch::take(SPAN, 0f32)),
        }
    }
}

impl<'a> TaskQueries<'a> {
    pub(super) fn new(level: Level, args: &'a PagedAttentionArgs<'a>, task: &Task, q: HeadRows<'_>) -> Self {
        let (e, n) = (args.pages.layout.head_dim, task.tokens.len() * args.group());
        let mut data = Scratch::take(n * e, 0f32);
        for (query, row) in data.chunks_exact_mut(e).enumerate() {
            let (token, head) = token_and_head(args, task.tokens.start, task.kv_head, query);
            row.copy_from_slice(q.vector(token, head, e));
        }
        Self {
            level,
            args,
            sequence: &args.sequences[task.sequence],
            kv_head: task.kv_head,
            tokens: task.tokens.clone(),
            tile: n.div_ceil(n.div_ceil(max_queries(level))),
            data,
        }
    }

    /// Number of queries.
    pub(super) fn len(&self) -> usize {
        self.tokens.len() * self.args.group()
    }

    /// Elements of a query's partial.
    pub(super) fn partial_len(&self) -> usize {
        partial_len(&self.args.pages.layout)
    }

    /// Token and head of a query.
    pub(super) fn token_and_head(&self, query: usize) -> (usize, usize) {
        token_and_head(self.args, self.tokens.start, self.kv_head, query)
    }

    /// Writes the partials of span `span`, `[queries, partial_len]`.
    pub(super) fn attend_span(&self, span: usize, workspace: &mut Workspace, partials: &mut [f32]) {
        self.score_keys(span, workspace);
        self.weigh_keys(span, workspace, partials);
        self.accumulate_values(span, workspace, partials);
    }

    /// Keys of `range` visible to a query, relative to the start of the range.
    fn seen(&self, query: usize, range: &Range<usize>) -> Range<usize> {
        let visible = self.args.visible(self.sequence, self.token_and_head(query).0);
        let from = visible.start.clamp(range.start, range.end);
        from - range.start..visible.end.clamp(from, range.end) - range.start
    }

    /// Smallest range of keys of `range` visible to any of `queries`, relative to the start of the range.
    fn seen_by_any(&self, queries: &Range<usize>, range: &Range<usize>) -> Range<usize> {
        let seen = queries.clone().map(|query| self.seen(query, range)).filter(|seen| !seen.is_empty());
        seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
    }

    /// Tiles of queries.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (n, tile) = (self.len(), self.tile);
        (0..n).step_by(tile).map(move |from| from..(from + tile).min(n))
    }

    /// Pages of a span visible to any query.
    fn pages(&self, span: usize) -> Range<usize> {
        let keys = span * SPAN..(span + 1) * SPAN;
        let seen = self.seen_by_any(&(0..self.len()), &keys);
        (keys.start + seen.start) / PAGE..(keys.start + seen.end).div_ceil(PAGE)
    }

    /// Keys or values of the head in a page.
    fn block(&self, page: usize, kind: KvKind) -> KvBlock<'a> {
        self.args.pages.block(self.sequence.pages[page], self.kv_head, kind)
    }

    /// Block that is read after that of `page`: the next page, or the first values after the last keys. `None` when the task is
    /// bound by arithmetic.
    fn prefetch(&self, page: usize, pages: &Range<usize>, kind: KvKind) -> Option<KvSlice<'a>> {
        match kind {
            _ if self.tile < self.len() => None,
            _ if page + 1 < pages.end => Some(self.block(page + 1, kind).data),
            KvKind::Keys => Some(self.block(pages.start, KvKind::Values).data),
            KvKind::Values => None,
        }
    }

    /// Writes the products of queries with the keys visible to any query of their tile.
    fn score_keys(&self, span: usize, Workspace { scores, page: buffer, .. }: &mut Workspace) {
        let (e, pages) = (self.args.pages.layout.head_dim, self.pages(span));
        for page in pages.clone() {
            let keys = page * PAGE..(page + 1) * PAGE;
            let data = self.load(self.block(page, KvKind::Keys), buffer);
            let prefetch = self.prefetch(page, &pages, KvKind::Keys);
            for tile in self.tiles() {
                let seen = self.seen_by_any(&tile, &keys);
                let blocks = seen.start / LANES..seen.end.div_ceil(LANES);
                let gemm = MicroGemm {
                    weights: &self.data[tile.start * e..],
                    weight_stride: e,
                    matrix: data.from(blocks.start * LANES * e),
                    row_stride: LANES,
                    block_stride: LANES * e,
                    queries: tile.len(),
                    rows: e,
                    blocks: blocks.len(),
                    accumulate: false,
                    prefetch,
                };
                let first = tile.start * SPAN + keys.start % SPAN + blocks.start * LANES;
                gemm.run(self.level, &mut scores[first..], SPAN);
            }
        }
    }

    /// Elements of a block, converted to f32 when several tiles read them.
    fn load<'w>(&self, block: KvBlock<'a>, buffer: &'w mut [f32]) -> KvSlice<'w>
    where
        'a: 'w,
    {
        if self.tile < self.len() { KvSlice::F32(block.data.to_f32(buffer)) } else { block.data }
    }

    /// Turns products into weights; writes m and l of each partial.
    fn weigh_keys(
        &self,
        span: usize,
        Workspace { scores, scales, .. }: &mut Workspace,
        partials: &mut [f32],
    ) {
        let (keys, partial_len) = (span * SPAN..(span + 1) * SPAN, self.partial_len());
        let has_scales = self.gather_scales(span, scales);
        let rows = scores.chunks_exact_mut(SPAN).zip(partials.chunks_exact_mut(partial_len));
        for (query, (row, partial)) in rows.enumerate() {
            let (token, head) = self.token_and_head(query);
            let position = self.args.visible(self.sequence, token).end - 1;
            let params = RowScoreParams {
                scale: self.args.scale,
                cap: self.args.cap,
                slope: self.args.slopes[head],
                distance: position as i32 - keys.start as i32,
            };
            let scales = has_scales.then(|| [&*scales[0], &*scales[1]]);
            let (m, l) = softmax_weights(row, &self.seen(query, &keys), &params, scales);
            (partial[partial_len - 2], partial[partial_len - 1]) = (m, l);
        }
    }

    /// Copies the scales of a span's pages; returns whether there are any.
    fn gather_scales(&self, span: usize, scales: &mut [Scratch<f32>; 2]) -> bool {
        for page in self.pages(span) {
            for (kind, at) in [(KvKind::Keys, 0), (KvKind::Values, 1)] {
                let Some(page_scales) = self.block(page, kind).scales else { return false };
                scales[at][page * PAGE % SPAN..][..PAGE].copy_from_slice(page_scales);
            }
        }
        true
    }

    /// Writes the weighted values of each partial.
    fn accumulate_values(
        &self,
        span: usize,
        Workspace { scores, page: buffer, .. }: &mut Workspace,
        partials: &mut [f32],
    ) {
        let (pages, partial_len) = (self.pages(span), self.partial_len());
        partials.chunks_exact_mut(partial_len).for_each(|partial| partial[..partial_len - 2].fill(0.0));
        for page in pages.clone() {
            let data = self.load(self.block(page, KvKind::Values), buffer);
            let prefetch = self.prefetch(page, &pages, KvKind::Values);
            for tile in self.tiles() {
                let values = PageValues { page, data, prefetch };
                self.accumulate_tile(&values, &tile, scores, partials);
            }
        }
    }

    /// Adds the visible values of a page to the partials of a tile, in order. Values visible to all queries are added together.
    fn accumulate_tile(
        &self,
        values: &PageValues<'_>,
        tile: &Range<usize>,
        scores: &[f32],
        partials: &mut [f32],
    ) {
        let seen = |query: usize| self.seen(query, &(values.page * PAGE..(values.page + 1) * PAGE));
        let common = |a: Range<usize>, b: Range<usize>| a.start.max(b.start)..a.end.min(b.end);
        let mut add = |queries: Range<usize>, rows| self.add_values(values, queries, rows, scores, partials);
        match tile.clone().map(seen).reduce(common) {
            Some(common) if !common.is_empty() => {
                tile.clone().for_each(|query| add(query..query + 1, seen(query).start..common.start));
                add(tile.clone(), common.clone());
                tile.clone().for_each(|query| add(query..query + 1, common.end..seen(query).end));
            }
            _ => tile.clone().for_each(|query| add(query..query + 1, seen(query))),
        }
    }

    /// Adds the values `rows` of a page, visible to all of `queries`, to their partials.
    fn add_values(
        &self,
        values: &PageValues<'_>,
        queries: Range<usize>,
        rows: Range<usize>,
        scores: &[f32],
        partials: &mut [f32],
    ) {
        if rows.is_empty() {
            return;
        }
        let value_stride = self.args.pages.layout.value_stride();
        let gemm = MicroGemm {
            weights: &scores[queries.start * SPAN + values.page * PAGE % SPAN + rows.start..],
            weight_stride: SPAN,
            matrix: values.data.from(rows.start * value_stride),
            row_stride: value_stride,
            block_stride: LANES,
            queries: queries.len(),
            rows: rows.len(),
            blocks: value_stride / LANES,
            accumulate: true,
            prefetch: values.prefetch,
        };
        gemm.run(self.level, &mut partials[queries.start * self.partial_len()..], self.partial_len());
    }
}

/// Values of a page.
struct PageValues<'a> {
    page: usize,
    data: KvSlice<'a>,
    /// Block to prefetch.
    prefetch: Option<KvSlice<'a>>,
}
