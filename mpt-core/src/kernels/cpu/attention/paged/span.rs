//! Some queries of one sequence and key/value head over one span of keys.

use std::ops::Range;

use super::layout::{Block, Half, LANES, Numbers, PAGE};
use super::plan::{Task, place};
use super::product::{Product, most_queries};
use super::softmax::{Curve, part_len, weigh};
use super::store::HeadRows;
use super::{Call, SPAN, Sequence};
use crate::kernels::cpu::dispatch::Level;
use crate::kernels::cpu::scratch::Scratch;

/// The queries of a task.
pub(super) struct Queries<'a> {
    level: Level,
    call: &'a Call<'a>,
    sequence: &'a Sequence<'a>,
    kv_head: usize,
    tokens: Range<usize>,
    /// Queries that a product takes at once.
    tile: usize,
    /// `[queries, e]`
    numbers: Scratch<f32>,
}

/// Room to work in.
pub(super) struct Space {
    /// Scores, then weights, `[queries, SPAN]`.
    scores: Scratch<f32>,
    /// Numbers of a page as f32.
    wide: Scratch<f32>,
    /// Scales of the span's keys and values, where the form has them.
    scales: [Scratch<f32>; 2],
}

impl Space {
    pub(super) fn new(queries: &Queries<'_>) -> Self {
        Self {
            scores: Scratch::take(queries.len() * SPAN, 0f32),
            wide: Scratch::take(PAGE * queries.call.pages.layout.value_step(), 0f32),
            scales: [(); 2].map(|()| Scratch::take(SPAN, 0f32)),
        }
    }
}

impl<'a> Queries<'a> {
    pub(super) fn new(level: Level, call: &'a Call<'a>, task: &Task, q: HeadRows<'_>) -> Self {
        let (e, n) = (call.pages.layout.head_dim, task.tokens.len() * call.group());
        let mut numbers = Scratch::take(n * e, 0f32);
        for (query, numbers) in numbers.chunks_exact_mut(e).enumerate() {
            let (token, head) = place(call, task.tokens.start, task.kv_head, query);
            numbers.copy_from_slice(q.vector(token, head, e));
        }
        Self {
            level,
            call,
            sequence: &call.sequences[task.sequence],
            kv_head: task.kv_head,
            tokens: task.tokens.clone(),
            tile: n.div_ceil(n.div_ceil(most_queries(level))),
            numbers,
        }
    }

    /// Number of queries.
    pub(super) fn len(&self) -> usize {
        self.tokens.len() * self.call.group()
    }

    /// Numbers of a query's part.
    pub(super) fn part_len(&self) -> usize {
        part_len(&self.call.pages.layout)
    }

    /// Token and head of a query.
    pub(super) fn place(&self, query: usize) -> (usize, usize) {
        place(self.call, self.tokens.start, self.kv_head, query)
    }

    /// Writes the parts `[queries, part]` of span `span`.
    pub(super) fn span(&self, span: usize, space: &mut Space, parts: &mut [f32]) {
        self.score(span, space);
        self.weigh(span, space, parts);
        self.accumulate(span, space, parts);
    }

    /// The keys of `range` that a query sees, counted from the range's first.
    fn seen(&self, query: usize, range: &Range<usize>) -> Range<usize> {
        let visible = self.call.visible(self.sequence, self.place(query).0);
        let from = visible.start.clamp(range.start, range.end);
        from - range.start..visible.end.clamp(from, range.end) - range.start
    }

    /// The keys of `range` that some queries see, with gaps between, counted from the range's first.
    fn seen_by_any(&self, queries: &Range<usize>, range: &Range<usize>) -> Range<usize> {
        let seen = queries.clone().map(|query| self.seen(query, range)).filter(|seen| !seen.is_empty());
        seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
    }

    /// The queries by as many as a product takes.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (n, tile) = (self.len(), self.tile);
        (0..n).step_by(tile).map(move |from| from..(from + tile).min(n))
    }

    /// The pages of a span that any query sees.
    fn pages(&self, span: usize) -> Range<usize> {
        let keys = span * SPAN..(span + 1) * SPAN;
        let seen = self.seen_by_any(&(0..self.len()), &keys);
        (keys.start + seen.start) / PAGE..(keys.start + seen.end).div_ceil(PAGE)
    }

    fn block(&self, page: usize, half: Half) -> Block<'a> {
        self.call.pages.block(self.sequence.pages[page], self.kv_head, half)
    }

    /// What is read behind a page of the range: another one, or after the last key the first value.
    fn ahead(&self, page: usize, pages: &Range<usize>, half: Half) -> Option<Numbers<'a>> {
        match half {
            _ if self.tile < self.len() => None, // bound by arithmetic
            _ if page + 1 < pages.end => Some(self.block(page + 1, half).numbers),
            Half::Keys => Some(self.block(pages.start, Half::Values).numbers),
            Half::Values => None,
        }
    }

    /// Writes the products of queries with the keys that any of their tile sees.
    fn score(&self, span: usize, Space { scores, wide, .. }: &mut Space) {
        let (e, pages) = (self.call.pages.layout.head_dim, self.pages(span));
        for page in pages.clone() {
            let keys = page * PAGE..(page + 1) * PAGE;
            let numbers = self.numbers_of(self.block(page, Half::Keys), wide);
            let ahead = self.ahead(page, &pages, Half::Keys);
            for tile in self.tiles() {
                let seen = self.seen_by_any(&tile, &keys);
                let blocks = seen.start / LANES..seen.end.div_ceil(LANES);
                let product = Product {
                    weights: &self.numbers[tile.start * e..],
                    weight_step: e,
                    matrix: numbers.from(blocks.start * LANES * e),
                    row_step: LANES,
                    block_step: LANES * e,
                    queries: tile.len(),
                    rows: e,
                    blocks: blocks.len(),
                    add: false,
                    ahead,
                };
                let first = tile.start * SPAN + keys.start % SPAN + blocks.start * LANES;
                product.run(self.level, &mut scores[first..], SPAN);
            }
        }
    }

    /// The numbers of a block: as f32 where more than one tile reads them.
    fn numbers_of<'w>(&self, block: Block<'a>, wide: &'w mut [f32]) -> Numbers<'w>
    where
        'a: 'w,
    {
        if self.tile < self.len() { Numbers::F32(block.numbers.widened(wide)) } else { block.numbers }
    }

    /// Turns products into weights; writes m and l of each part.
    fn weigh(&self, span: usize, Space { scores, scales, .. }: &mut Space, parts: &mut [f32]) {
        let (keys, part_len) = (span * SPAN..(span + 1) * SPAN, self.part_len());
        let has_scales = self.gather_scales(span, scales);
        let rows = scores.chunks_exact_mut(SPAN).zip(parts.chunks_exact_mut(part_len));
        for (query, (row, part)) in rows.enumerate() {
            let (token, head) = self.place(query);
            let position = self.call.visible(self.sequence, token).end - 1;
            let curve = Curve {
                scale: self.call.scale,
                cap: self.call.cap,
                slope: self.call.slopes[head],
                distance: position as i32 - keys.start as i32,
            };
            let scales = has_scales.then(|| [&*scales[0], &*scales[1]]);
            let (m, l) = weigh(row, &self.seen(query, &keys), &curve, scales);
            (part[part_len - 2], part[part_len - 1]) = (m, l);
        }
    }

    /// Copies the scales of a span's pages; returns whether there are any.
    fn gather_scales(&self, span: usize, scales: &mut [Scratch<f32>; 2]) -> bool {
        for page in self.pages(span) {
            for (half, at) in [(Half::Keys, 0), (Half::Values, 1)] {
                let Some(of_page) = self.block(page, half).scales else { return false };
                scales[at][page * PAGE % SPAN..][..PAGE].copy_from_slice(of_page);
            }
        }
        true
    }

    /// Writes the weighted values of each part.
    fn accumulate(&self, span: usize, Space { scores, wide, .. }: &mut Space, parts: &mut [f32]) {
        let (pages, part_len) = (self.pages(span), self.part_len());
        parts.chunks_exact_mut(part_len).for_each(|part| part[..part_len - 2].fill(0.0));
        for page in pages.clone() {
            let numbers = self.numbers_of(self.block(page, Half::Values), wide);
            let ahead = self.ahead(page, &pages, Half::Values);
            for tile in self.tiles() {
                let values = Values { page, numbers, ahead };
                self.accumulate_tile(&values, &tile, scores, parts);
            }
        }
    }

    /// Adds the values of a page to the parts of a tile: each query those that it sees, in order; together those that all
    /// of them see.
    fn accumulate_tile(&self, values: &Values<'_>, tile: &Range<usize>, scores: &[f32], parts: &mut [f32]) {
        let seen = |query: usize| self.seen(query, &(values.page * PAGE..(values.page + 1) * PAGE));
        let common = |a: Range<usize>, b: Range<usize>| a.start.max(b.start)..a.end.min(b.end);
        let mut add = |queries: Range<usize>, rows| self.add_values(values, queries, rows, scores, parts);
        match tile.clone().map(seen).reduce(common) {
            Some(common) if !common.is_empty() => {
                tile.clone().for_each(|query| add(query..query + 1, seen(query).start..common.start));
                add(tile.clone(), common.clone());
                tile.clone().for_each(|query| add(query..query + 1, common.end..seen(query).end));
            }
            _ => tile.clone().for_each(|query| add(query..query + 1, seen(query))),
        }
    }

    /// Adds the values `rows` of a page to the parts of queries that see them all.
    fn add_values(
        &self,
        values: &Values<'_>,
        queries: Range<usize>,
        rows: Range<usize>,
        scores: &[f32],
        parts: &mut [f32],
    ) {
        if rows.is_empty() {
            return;
        }
        let step = self.call.pages.layout.value_step();
        let product = Product {
            weights: &scores[queries.start * SPAN + values.page * PAGE % SPAN + rows.start..],
            weight_step: SPAN,
            matrix: values.numbers.from(rows.start * step),
            row_step: step,
            block_step: LANES,
            queries: queries.len(),
            rows: rows.len(),
            blocks: step / LANES,
            add: true,
            ahead: values.ahead,
        };
        product.run(self.level, &mut parts[queries.start * self.part_len()..], self.part_len());
    }
}

/// The values of a page, and what is read behind them.
struct Values<'a> {
    page: usize,
    numbers: Numbers<'a>,
    ahead: Option<Numbers<'a>>,
}
