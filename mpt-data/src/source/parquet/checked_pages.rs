//! Pages with checked sizes. The library allocates memory for the sizes and counts in a page's header before it reads the
//! page, so they are checked first.

use std::sync::Arc;

use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::ChunkReader;
use parquet::file::serialized_reader::SerializedPageReader;

use super::page_header::{self, PageHeader};
use crate::blob::Blob;

/// Most decompressed bytes of any page.
const MAX_SMALL_PAGE_BYTES: u64 = 256 << 20;
/// Most decompressed bytes per byte in the file, of a larger page.
const MAX_COMPRESSION_RATIO: u64 = 100;
/// Most values of a page in a delta encoding, whose lengths are in memory at once.
const MAX_DELTA_VALUES: u64 = 1 << 24;

/// Pages of a column chunk, checked before they are decompressed and before they are decoded.
pub(super) struct CheckedPages {
    blob: Arc<Blob>,
    pages: SerializedPageReader<Blob>,
    kind: Type,
    max_def_level: i16,
    /// Offset of the next page's header, and end of the last page.
    at: u64,
    end: u64,
}

impl CheckedPages {
    pub(super) fn open(blob: Arc<Blob>, chunk: &ColumnChunkMetaData, rows: i64) -> Result<Self> {
        let rows = usize::try_from(rows)?;
        let (at, bytes) = chunk.byte_range();
        let pages = SerializedPageReader::new(blob.clone(), chunk, rows, None)?;
        let max_def_level = chunk.column_descr().max_def_level();
        Ok(Self { blob, pages, kind: chunk.column_type(), max_def_level, at, end: at.saturating_add(bytes) })
    }

    /// Checks the headers up to that of the next page with values.
    fn check_headers(&mut self) -> Result<()> {
        while self.at < self.end {
            let mut input = self.blob.get_read(self.at)?;
            let PageHeader { is_index, bytes, uncompressed, length } = page_header::read(&mut input)?;
            if uncompressed > MAX_SMALL_PAGE_BYTES.max(bytes.saturating_mul(MAX_COMPRESSION_RATIO)) {
                let problem = format!("a page of {bytes} bytes claims {uncompressed} bytes of content");
                return Err(ParquetError::General(problem));
            }
            self.at = self.at.saturating_add(length).saturating_add(bytes);
            if !is_index {
                break;
            }
        }
        Ok(())
    }

    fn check_page(&self, page: &Page) -> Result<()> {
        let (bytes, values) = (page.buffer().len() as u64, u64::from(page.num_values()));
        let most = match page {
            Page::DictionaryPage { .. } => bytes / least_bytes(self.kind),
            Page::DataPage { .. } | Page::DataPageV2 { .. } if is_delta(page.encoding()) => {
                return self.check_delta(page);
            }
            _ => return Ok(()),
        };
        if values <= most { Ok(()) } else { Err(too_many(bytes, values)) }
    }

    /// Checks the number of lengths that a delta encoding claims.
    fn check_delta(&self, page: &Page) -> Result<()> {
        let bytes = page.buffer().len() as u64;
        let mut rest = self.values_of(page).ok_or_else(|| too_many(bytes, page.num_values().into()))?;
        // Size of a block, miniblocks in a block, count of values.
        let numbers = [0; 3].map(|_| page_header::varint(&mut rest).unwrap_or(u64::MAX));
        if numbers[2] <= MAX_DELTA_VALUES { Ok(()) } else { Err(too_many(bytes, numbers[2])) }
    }

    /// Bytes of a page after its levels; a flat column has no repetition levels.
    fn values_of<'a>(&self, page: &'a Page) -> Option<&'a [u8]> {
        let all: &[u8] = page.buffer();
        let levels = match page {
            Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. } => {
                *def_levels_byte_len as usize + *rep_levels_byte_len as usize
            }
            _ if self.max_def_level == 0 => 0,
            _ => 4 + u32::from_le_bytes(*all.first_chunk()?) as usize,
        };
        all.get(levels..)
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.check_headers()?;
        let page = self.pages.get_next_page()?;
        page.iter().try_for_each(|page| self.check_page(page))?;
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.check_headers()?;
        self.pages.skip_next_page()
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// Least bytes of a value in a dictionary; a text has its length.
fn least_bytes(kind: Type) -> u64 {
    match kind {
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
        Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
        Type::BOOLEAN | Type::FIXED_LEN_BYTE_ARRAY => 1,
    }
}

fn is_delta(encoding: Encoding) -> bool {
    matches!(
        encoding,
        Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY
    )
}

fn too_many(bytes: u64, values: u64) -> ParquetError {
    ParquetError::General(format!("a page of {bytes} bytes claims {values} values"))
}
