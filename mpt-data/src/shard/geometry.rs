//! Geometry of a written file: a base and a stride per column and row group, checked against every page.

use parquet::file::metadata::ParquetMetaData;

use crate::layout::{ColumnPages, PAGE_ROWS, RowGroup, RowLayout};

/// Geometry of a file, from its footer and offset index; every page is checked against the formula.
pub(super) fn measure(metadata: &ParquetMetaData, layout: RowLayout) -> Result<Vec<RowGroup>, String> {
    let widths = [layout.tokens_width(), layout.meta_width()];
    (0..metadata.num_row_groups())
        .map(|group| {
            let rows =
                u64::try_from(metadata.row_group(group).num_rows()).map_err(|_| "negative row count")?;
            let [tokens, meta] =
                [0, 1].map(|column| measure_column(metadata, group, column, rows, widths[column]));
            Ok(RowGroup { rows, tokens: tokens?, meta: meta? })
        })
        .collect()
}

fn measure_column(
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
    rows: u64,
    width: usize,
) -> Result<ColumnPages, String> {
    let chunk = format!("row group {group}, column {column}");
    let index = metadata.page_index_for_row_group(group);
    let index = index.offset_index(column).ok_or_else(|| format!("{chunk}: no offset index"))?;
    let starts = page_starts(index.page_locations(), rows, width)
        .ok_or_else(|| format!("{chunk}: pages are not {PAGE_ROWS} rows of {width} bytes"))?;
    let (&base, &tail) = starts.first().zip(starts.last()).ok_or_else(|| format!("{chunk}: no pages"))?;
    let stride =
        if starts.len() > 1 { if starts.len() == 2 { tail - base } else { starts[1] - base } } else { 0 };
    let pages = ColumnPages { base, stride, tail };
    let fits = |page: usize, start: u64| pages.offset(page as u64 * PAGE_ROWS, rows, width) == start;
    match starts.iter().enumerate().find(|(page, start)| !fits(*page, **start)) {
        Some((page, start)) => {
            Err(format!("{chunk}: page {page} begins at {start}, not where the formula says"))
        }
        None => Ok(pages),
    }
}

/// Offset of the first row of each page: a page is a header and then its rows.
fn page_starts(
    pages: &[parquet::file::page_index::offset_index::PageLocation],
    rows: u64,
    width: usize,
) -> Option<Vec<u64>> {
    let starts = pages.iter().enumerate().map(|(index, page)| {
        let first = index as u64 * PAGE_ROWS;
        let data = rows.checked_sub(first)?.min(PAGE_ROWS) * width as u64;
        let end = u64::try_from(page.offset).ok()? + u64::try_from(page.compressed_page_size).ok()?;
        (u64::try_from(page.first_row_index).ok()? == first).then_some(end.checked_sub(data)?)
    });
    let starts: Vec<_> = starts.collect::<Option<_>>()?;
    (starts.len() as u64 == rows.div_ceil(PAGE_ROWS)).then_some(starts)
}
