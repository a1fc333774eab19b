//! Page: rows of a row group that are fetched and cached together, and the ranges of the shard that hold them.

use std::ops::Range;
use std::sync::Arc;

use super::options::ReadMode;
use crate::layout::{PAGE_ROWS, RowGroup, RowLayout};

/// Largest gap between ranges that are fetched as one.
const MAX_GAP: u64 = 64 << 10;

/// Key of a page. The hash of the file identifies its content, whatever its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PageKey {
    /// SHA-256 of the shard, in hex.
    pub(super) sha256: Arc<str>,
    /// First row in the shard.
    pub(super) first: u64,
    /// Rows.
    pub(super) rows: u64,
}

/// Location of a page in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageSpan<'a> {
    /// Row group.
    group: &'a RowGroup,
    /// First row of the row group in the shard.
    group_first: u64,
    /// First row of the page in the row group.
    inside: u64,
    /// Rows.
    pub(super) rows: u64,
}

/// Range of a page: its place in the shard and in the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CopyRange {
    from: u64,
    bytes: usize,
    to: usize,
}

impl<'a> PageSpan<'a> {
    /// Page that holds a row.
    pub(super) fn of(groups: &'a [RowGroup], row: u64, mode: ReadMode) -> Option<Self> {
        let mut group_first = 0;
        for group in groups {
            if row < group_first + group.rows {
                let rows = match mode {
                    ReadMode::Rows(rows) => rows.max(1),
                    ReadMode::Chunks => group.rows,
                };
                let inside = (row - group_first) / rows * rows;
                return Some(Self { group, group_first, inside, rows: rows.min(group.rows - inside) });
            }
            group_first += group.rows;
        }
        None
    }

    /// Its first row in the shard.
    pub(super) fn first(&self) -> u64 {
        self.group_first + self.inside
    }

    /// Bytes of the page: its rows of `tokens`, then its rows of `meta`.
    pub(super) fn bytes(&self, layout: RowLayout) -> usize {
        self.rows as usize * (layout.tokens_width() + layout.meta_width())
    }

    /// Ranges to request, in order.
    pub(super) fn requests(&self, layout: RowLayout) -> Vec<Range<u64>> {
        let mut parts = self.parts(layout);
        parts.sort_by_key(|part| part.from);
        let mut requests: Vec<Range<u64>> = Vec::new();
        for part in parts {
            let end = part.from.saturating_add(part.bytes as u64);
            match requests.last_mut() {
                Some(last) if part.from <= last.end.saturating_add(MAX_GAP) => last.end = last.end.max(end),
                _ => requests.push(part.from..end),
            }
        }
        requests
    }

    /// Page assembled from the answers.
    pub(super) fn assemble(&self, layout: RowLayout, answers: &[(Range<u64>, Vec<u8>)]) -> Option<Vec<u8>> {
        let mut page = vec![0; self.bytes(layout)];
        for part in self.parts(layout) {
            let (range, bytes) = answers.iter().find(|(range, _)| range.contains(&part.from))?;
            let skip = usize::try_from(part.from - range.start).ok()?;
            page[part.to..part.to + part.bytes].copy_from_slice(bytes.get(skip..skip + part.bytes)?);
        }
        Some(page)
    }

    /// Ranges of the page, each within one Parquet page.
    fn parts(&self, layout: RowLayout) -> Vec<CopyRange> {
        let mut parts = Vec::new();
        let mut to = 0;
        for (pages, width) in
            [(&self.group.tokens, layout.tokens_width()), (&self.group.meta, layout.meta_width())]
        {
            let (mut row, end) = (self.inside, self.inside + self.rows);
            while row < end {
                let rows = (PAGE_ROWS - row % PAGE_ROWS).min(end - row);
                let bytes = rows as usize * width;
                parts.push(CopyRange { from: pages.offset(row, self.group.rows, width), bytes, to });
                to += bytes;
                row += rows;
            }
        }
        parts
    }
}

/// Byte ranges of rows `from..from + count` in a page of `rows` rows: of `tokens`, and of `meta`.
pub(super) fn row_ranges(rows: u64, from: u64, count: u64, layout: RowLayout) -> [Range<usize>; 2] {
    let (tokens, meta) = (layout.tokens_width(), layout.meta_width());
    let (rows, from, count) = (rows as usize, from as usize, count as usize);
    let meta_from = rows * tokens + from * meta;
    [from * tokens..(from + count) * tokens, meta_from..meta_from + count * meta]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::ColumnPages;

    const LAYOUT: RowLayout = RowLayout { row_tokens: 8, token_bytes: 2 };

    fn group(at: u64, rows: u64) -> RowGroup {
        // Pages with headers of 20 bytes: `tokens` rows have 16 bytes, `meta` rows 17.
        let pages = |base: u64, width: u64| {
            let stride = PAGE_ROWS * width + 20;
            let last = (rows - 1) / PAGE_ROWS;
            ColumnPages { base, stride: if last > 0 { stride } else { 0 }, tail: base + last * stride }
        };
        let tokens_end = at + 20 + rows.div_ceil(PAGE_ROWS) * (PAGE_ROWS * 16 + 20);
        RowGroup { rows, tokens: pages(at + 20, 16), meta: pages(tokens_end + 20, 17) }
    }

    #[test]
    fn a_chunk_is_one_request_and_a_few_rows_are_two_when_they_lie_apart() {
        let groups = [group(4, 300), group(40_000, 2048)];
        let chunk = PageSpan::of(&groups, 310, ReadMode::Chunks).expect("inside");
        assert_eq!((chunk.first(), chunk.rows), (300, 2048));
        assert_eq!(chunk.requests(LAYOUT).len(), 1);
        let rows = PageSpan::of(&groups, 310, ReadMode::Rows(16)).expect("inside");
        assert_eq!((rows.first(), rows.rows), (300, 16));
        let far = RowGroup { meta: ColumnPages { base: 900_000, stride: 0, tail: 900_000 }, ..group(4, 200) };
        let far = [far];
        let rows = PageSpan::of(&far, 199, ReadMode::Rows(16)).expect("inside");
        assert_eq!((rows.first(), rows.rows), (192, 8));
        assert_eq!(
            rows.requests(LAYOUT),
            [24 + 192 * 16..24 + 200 * 16, 900_000 + 192 * 17..900_000 + 200 * 17]
        );
        assert_eq!(PageSpan::of(&groups, 2348, ReadMode::Chunks), None);
    }

    #[test]
    fn a_page_has_its_rows_without_what_lies_between() {
        let groups = [group(4, 300)];
        let file: Vec<u8> = (0..20_000_u32).map(|at| (at % 251) as u8).collect();
        for mode in [ReadMode::Chunks, ReadMode::Rows(1), ReadMode::Rows(7), ReadMode::Rows(256)] {
            for row in [0, 1, 255, 256, 299] {
                let span = PageSpan::of(&groups, row, mode).expect("inside");
                let answers: Vec<_> = span
                    .requests(LAYOUT)
                    .into_iter()
                    .map(|range| (range.clone(), file[range.start as usize..range.end as usize].to_vec()))
                    .collect();
                let page = span.assemble(LAYOUT, &answers).expect("all came");
                let [tokens, meta] = row_ranges(span.rows, row - span.first(), 1, LAYOUT);
                let at = |pages: &ColumnPages, width| pages.offset(row, 300, width) as usize;
                let (from, meta_from) = (at(&groups[0].tokens, 16), at(&groups[0].meta, 17));
                assert_eq!(page[tokens], file[from..from + 16], "{mode:?} {row}");
                assert_eq!(page[meta], file[meta_from..meta_from + 17], "{mode:?} {row}");
            }
        }
    }
}
