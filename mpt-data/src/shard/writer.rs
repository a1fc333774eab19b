//! Writer of one shard: a row group is buffered, and the file is measured and read back before it is renamed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Repetition, Type as PhysicalType};
use parquet::data_type::{ByteArray, FixedLenByteArray, FixedLenByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, PageIndexPolicy, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::geometry;
use super::reader::ShardReader;
use crate::error::{Error, Result};
use crate::file_digest::HashingFile;
use crate::layout::{
    FILE_GROUPS, GROUP_ROWS, PAGE_ROWS, RowBuffers, RowGroup, RowLayout, ShardRecord, encode_row,
};
use crate::pack::PackedRow;

/// Writer in the footer. It has no version, so that the same data gives the same bytes.
pub(crate) const CREATED_BY: &str = "mpt data 1";

/// Writer of the rows of one file.
pub(crate) struct ShardWriter {
    layout: RowLayout,
    root: PathBuf,
    relative: String,
    parquet: SerializedFileWriter<HashingFile>,
    tokens: Vec<u8>,
    meta: Vec<u8>,
    rows: u64,
    documents: Option<[u64; 2]>,
}

impl ShardWriter {
    /// Creates the file `root`/`relative`.
    pub(crate) fn create(root: &Path, relative: String, layout: RowLayout) -> Result<Self> {
        let path = root.join(&relative);
        let file = HashingFile::create(&path)?;
        let parquet = SerializedFileWriter::new(file, schema(layout), Arc::new(properties(layout)));
        let parquet = parquet.map_err(|error| write_error(&path, error))?;
        Ok(Self {
            layout,
            root: root.to_owned(),
            relative,
            parquet,
            tokens: Vec::new(),
            meta: Vec::new(),
            rows: 0,
            documents: None,
        })
    }

    /// Appends a row.
    pub(crate) fn push(&mut self, row: &PackedRow<'_>) -> Result<()> {
        encode_row(row, self.layout, &mut self.tokens, &mut self.meta);
        self.rows += 1;
        let first = self.documents.map_or(row.document, |[first, _]| first);
        self.documents = Some([first, row.document]);
        if self.rows.is_multiple_of(GROUP_ROWS) { self.write_group() } else { Ok(()) }
    }

    /// Whether the file has the most rows of a file.
    pub(crate) fn is_full(&self) -> bool {
        self.rows == GROUP_ROWS * FILE_GROUPS
    }

    /// Completes the file with these key-values in its footer, checks it, and renames it.
    pub(crate) fn finish(mut self, key_values: &[(&str, String)]) -> Result<ShardRecord> {
        let path = self.root.join(&self.relative);
        self.write_group()?;
        for (key, value) in key_values.iter().cloned().chain([("mpt.rows", self.rows.to_string())]) {
            self.parquet.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        let file = self.parquet.into_inner().map_err(|error| write_error(&path, error))?;
        let (file, bytes, sha256) = file.finish()?;
        let groups = read_geometry(file.aside(), self.layout)?;
        let (path_of, documents) = (self.relative, self.documents);
        let record = ShardRecord { path: path_of, rows: self.rows, bytes, sha256, documents, groups };
        read_back(file.aside(), &record, self.layout)?;
        file.commit()?;
        Ok(record)
    }

    fn write_group(&mut self) -> Result<()> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        let write = || -> Result<(), ParquetError> {
            let mut group = self.parquet.next_row_group()?;
            write_column(&mut group, &self.tokens, self.layout.tokens_width())?;
            write_column(&mut group, &self.meta, self.layout.meta_width())?;
            group.close().map(|_| ())
        };
        write_result(write, &self.root.join(&self.relative))?;
        self.tokens.clear();
        self.meta.clear();
        Ok(())
    }
}

fn write_result(write: impl FnOnce() -> Result<(), ParquetError>, path: &Path) -> Result<()> {
    write().map_err(|error| write_error(path, error))
}

fn write_column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    cells: &[u8],
    width: usize,
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.expect("the schema has two columns");
    for page in cells.chunks(width * PAGE_ROWS as usize) {
        let page = Bytes::copy_from_slice(page);
        let cell = |at: usize| FixedLenByteArray::from(ByteArray::from(page.slice(at..at + width)));
        let values: Vec<_> = (0..page.len()).step_by(width).map(cell).collect();
        column.typed::<FixedLenByteArrayType>().write_batch(&values, None, None)?;
    }
    column.close()
}

fn schema(layout: RowLayout) -> TypePtr {
    let column = |name: &str, width: usize| {
        let built = Type::primitive_type_builder(name, PhysicalType::FIXED_LEN_BYTE_ARRAY)
            .with_repetition(Repetition::REQUIRED)
            .with_length(i32::try_from(width).expect("rows are at most 64 KiB"))
            .build();
        Arc::new(built.expect("a fixed-length column of positive width"))
    };
    let columns = vec![column("tokens", layout.tokens_width()), column("meta", layout.meta_width())];
    Arc::new(Type::group_type_builder("rows").with_fields(columns).build().expect("a group of two columns"))
}

fn properties(layout: RowLayout) -> WriterProperties {
    WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::UNCOMPRESSED)
        .set_encoding(Encoding::PLAIN)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_write_batch_size(PAGE_ROWS as usize)
        .set_data_page_row_count_limit(PAGE_ROWS as usize)
        // Pages end by rows alone.
        .set_data_page_size_limit(2 * PAGE_ROWS as usize * layout.tokens_width().max(layout.meta_width()))
        .set_max_row_group_row_count(None)
        .build()
}

/// Geometry of a complete file.
fn read_geometry(path: &Path, layout: RowLayout) -> Result<Vec<RowGroup>> {
    let file = File::open(path).map_err(Error::io(path, "opening"))?;
    let metadata = ParquetMetaDataReader::new()
        .with_offset_index_policy(PageIndexPolicy::Required)
        .parse_and_finish(&file)
        .map_err(|error| write_error(path, error))?;
    geometry::measure(&metadata, layout).map_err(|problem| write_error(path, ParquetError::General(problem)))
}

/// Reads the first and the last row of every group through the computed offsets.
fn read_back(path: &Path, record: &ShardRecord, layout: RowLayout) -> Result<()> {
    let reader = ShardReader::open_at(path, record, layout)?;
    let mut scratch = RowBuffers::default();
    let mut first = 0;
    for group in &record.groups {
        for row in [first, first + group.rows - 1] {
            reader.rows(row, 1, &mut scratch, |_| ())?;
        }
        first += group.rows;
    }
    Ok(())
}

fn write_error(path: &Path, error: ParquetError) -> Error {
    let source = match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(io) => *io,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    };
    Error::io(path, "writing")(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{RowBytes, decode_tokens};
    use crate::pack::Packer;

    /// A file of `rows` rows of `row_tokens` tokens, token `i` of the stream being `i % vocab`, and a document every 100 tokens.
    fn write(dir: &Path, rows: usize, row_tokens: usize, vocab: usize) -> ShardRecord {
        let layout = RowLayout::new(row_tokens, vocab);
        let mut shard = ShardWriter::create(dir, "s/part.parquet".into(), layout).expect("creatable");
        let mut packer = Packer::new(row_tokens);
        let stream: Vec<_> = (0..rows * row_tokens).map(|at| (at % vocab) as u32).collect();
        for (document, tokens) in stream.chunks(100).enumerate() {
            packer.push(document as u64, tokens, |row| shard.push(&row)).expect("written");
        }
        shard.finish(&[("mpt.format", "1".into())]).expect("finished")
    }

    fn assert_readable(dir: &Path, record: &ShardRecord, row_tokens: usize, vocab: usize) {
        let layout = RowLayout::new(row_tokens, vocab);
        let reader = ShardReader::open(dir, record, layout).expect("openable");
        let (mut scratch, mut tokens, mut documents) = (RowBuffers::default(), Vec::new(), Vec::new());
        let mut keep = |row: RowBytes<'_>| {
            decode_tokens(row.tokens, layout.token_bytes, &mut tokens);
            documents.push(row.document());
        };
        reader.rows(0, record.rows, &mut scratch, &mut keep).expect("sound");
        assert!(tokens.iter().enumerate().all(|(at, &token)| token as usize == at % vocab));
        assert!(
            documents.iter().enumerate().all(|(row, &document)| document as usize == row * row_tokens / 100)
        );
    }

    #[test]
    fn rows_lie_where_the_formula_says() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (rows, row_tokens, vocab) in [
            (1, 16, 50),
            (256, 8, 300),
            (257, 24, 65_536),
            (2048 + 300, 16, 65_537),
            (2 * 2048 + 513, 9, 70_000),
        ] {
            let record = write(dir.path(), rows, row_tokens, vocab);
            assert_eq!(record.rows, rows as u64);
            assert_eq!(record.groups.len(), rows.div_ceil(2048));
            assert_readable(dir.path(), &record, row_tokens, vocab);
        }
    }

    #[test]
    fn other_readers_see_two_plain_columns() {
        use parquet::file::reader::{FileReader, SerializedFileReader};
        let dir = tempfile::tempdir().expect("a temporary folder");
        let record = write(dir.path(), 300, 16, 50);
        let file = File::open(dir.path().join(&record.path)).expect("there");
        let reader = SerializedFileReader::new(file).expect("Parquet");
        let column = reader.metadata().row_group(0).column(0);
        assert_eq!(column.compression(), Compression::UNCOMPRESSED);
        assert!(column.dictionary_page_offset().is_none() && column.statistics().is_none());
        let row = reader.get_row_iter(None).expect("rows").nth(299).expect("the last").expect("sound");
        use parquet::record::RowAccessor;
        let first = (299 * 16 % 50) as u8;
        assert_eq!(row.get_bytes(0).expect("bytes").data()[..4], [first, 0, (first + 1) % 50, 0]);
        let keys = reader.metadata().file_metadata().key_value_metadata().expect("key-values");
        assert!(keys.iter().any(|pair| pair.key == "mpt.format" && pair.value.as_deref() == Some("1")));
    }

    #[test]
    fn the_same_rows_give_the_same_bytes() {
        let (a, b) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        assert_eq!(write(a.path(), 700, 16, 50), write(b.path(), 700, 16, 50));
    }

    #[test]
    fn a_flipped_byte_names_file_and_row() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let record = write(dir.path(), 600, 16, 50);
        let path = dir.path().join(&record.path);
        let layout = RowLayout::new(16, 50);
        for (row, offset) in [
            (515u64, record.groups[0].tokens.offset(515, 600, 32) + 5),
            (3, record.groups[0].meta.offset(3, 600, 18) + 17),
        ] {
            let mut bytes = std::fs::read(&path).expect("readable");
            bytes[offset as usize] ^= 1;
            std::fs::write(&path, &bytes).expect("writable");
            let reader = ShardReader::open(dir.path(), &record, layout).expect("openable");
            let error = reader.rows(0, 600, &mut RowBuffers::default(), |_| ()).expect_err("damaged");
            assert!(error.to_string().starts_with(&format!("s/part.parquet: row {row}: ")), "{error}");
            bytes[offset as usize] ^= 1;
            std::fs::write(&path, &bytes).expect("writable");
        }
    }

    #[test]
    fn a_truncated_or_missing_file_is_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let record = write(dir.path(), 10, 16, 50);
        let path = dir.path().join(&record.path);
        let bytes = std::fs::read(&path).expect("readable");
        std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("writable");
        let open = || ShardReader::open(dir.path(), &record, RowLayout::new(16, 50)).map(|_| ());
        let error = open().expect_err("short").to_string();
        assert!(error.starts_with("s/part.parquet: has ") && error.contains("truncated"), "{error}");
        std::fs::remove_file(&path).expect("removable");
        assert!(open().expect_err("absent").to_string().starts_with("s/part.parquet: is missing"));
    }
}
