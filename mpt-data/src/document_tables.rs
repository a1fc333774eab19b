//! Tables beside the shards: the kept documents by ordinal, and the ledger of the dropped ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::blob::Blob;
use crate::error::{Damage, Error, Result};
use crate::file_digest::{FileDigest, HashingFile};
use crate::filter::DropReason;
use crate::panic_guard::catch_panic;
use crate::shard::CREATED_BY;

/// Rows in a row group, which a look-up decodes whole.
const GROUP_ROWS: usize = 8192;

/// Index from ordinals to ids of documents, with one row group in memory.
#[derive(Debug)]
pub struct DocumentIndex {
    path: PathBuf,
    name: &'static str,
    documents: u64,
    cached: Option<(usize, Vec<String>)>,
}

impl DocumentIndex {
    pub(crate) fn open(dir: &Path, name: &'static str) -> Result<Self> {
        let mut index = Self { path: dir.join(name), name, documents: 0, cached: None };
        let rows = index.catch_panic(|| Ok(index.reader()?.metadata().file_metadata().num_rows()))?;
        index.documents = u64::try_from(rows).map_err(|_| index.damaged("a negative number of rows"))?;
        Ok(index)
    }

    /// Kept documents; ordinals are below this.
    pub fn len(&self) -> u64 {
        self.documents
    }

    /// Whether no document was kept.
    pub fn is_empty(&self) -> bool {
        self.documents == 0
    }

    /// Id of a document. Consecutive calls with ordinals near each other are fast.
    ///
    /// # Errors
    /// [`Error::Shard`] for a damaged table or an unknown ordinal.
    pub fn id(&mut self, ordinal: u64) -> Result<&str> {
        if ordinal >= self.documents {
            return Err(self
                .damaged(format!("has {} documents, but document {ordinal} was asked for", self.documents)));
        }
        let group = (ordinal / GROUP_ROWS as u64) as usize;
        if self.cached.as_ref().is_none_or(|(cached, _)| *cached != group) {
            self.cached = Some((group, self.catch_panic(|| self.read_group(group))?));
        }
        let (_, ids) = self.cached.as_ref().expect("the group was read");
        let id = ids.get((ordinal % GROUP_ROWS as u64) as usize);
        id.map(String::as_str).ok_or_else(|| self.damaged(format!("row group {group} is too short")))
    }

    /// Histogram of the documents' tokens: element `i` counts documents of `2^i` to `2^(i + 1) - 1` tokens.
    ///
    /// # Errors
    /// [`Error::Shard`] for a damaged table.
    pub fn lengths(&self) -> Result<Vec<u64>> {
        self.catch_panic(|| self.count_lengths())
    }

    fn count_lengths(&self) -> Result<Vec<u64>> {
        let builder = self.reader()?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["tokens"]);
        let batches = builder.with_projection(mask).with_batch_size(GROUP_ROWS).build();
        let mut counts = Vec::new();
        for batch in batches.map_err(|error| self.damaged(error))? {
            let batch = batch.map_err(|error| self.damaged(error))?;
            let tokens =
                batch.column_by_name("tokens").and_then(|column| column.as_primitive_opt::<UInt64Type>());
            for tokens in tokens.ok_or_else(|| self.damaged("no column `tokens` of whole numbers"))?.values()
            {
                let bucket = tokens.max(&1).ilog2() as usize;
                counts.resize(counts.len().max(bucket + 1), 0);
                counts[bucket] += 1;
            }
        }
        Ok(counts)
    }

    fn read_group(&self, group: usize) -> Result<Vec<String>> {
        let builder = self.reader()?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["ordinal", "id"]);
        let batches =
            builder.with_projection(mask).with_row_groups(vec![group]).with_batch_size(GROUP_ROWS).build();
        let mut ids = Vec::new();
        for batch in batches.map_err(|error| self.damaged(error))? {
            let batch = batch.map_err(|error| self.damaged(error))?;
            let first = (group * GROUP_ROWS + ids.len()) as u64;
            ids.extend(
                group_ids(&batch, first)
                    .ok_or_else(|| self.damaged("documents are not in order of their ordinals"))?,
            );
        }
        Ok(ids)
    }

    fn reader(&self) -> Result<ParquetRecordBatchReaderBuilder<Blob>> {
        let file = Blob::open(&self.path)?;
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| self.damaged(error))
    }

    /// Result of a read; a panic of the library means a damaged table.
    fn catch_panic<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        catch_panic(read).unwrap_or_else(|panic| Err(self.damaged(panic)))
    }

    fn damaged(&self, problem: impl ToString) -> Error {
        Error::Shard(Damage { path: PathBuf::from(self.name), row: None, problem: problem.to_string() })
    }
}

/// Ids of a batch, whose ordinals must count up from `first`.
fn group_ids(batch: &RecordBatch, first: u64) -> Option<Vec<String>> {
    let ordinals = batch.column_by_name("ordinal")?.as_primitive_opt::<UInt64Type>()?;
    let ids = batch.column_by_name("id")?.as_string_opt::<i32>()?;
    let in_order = ordinals.values().iter().zip(first..).all(|(&ordinal, expected)| ordinal == expected);
    (in_order && ids.null_count() == 0).then(|| ids.iter().flatten().map(str::to_owned).collect())
}

/// Row of the table of kept documents.
pub(crate) struct DocumentRow<'a> {
    pub(crate) ordinal: u64,
    pub(crate) id: &'a str,
    pub(crate) source: &'a str,
    pub(crate) split: &'static str,
    pub(crate) tokens: u64,
    pub(crate) text_bytes: u64,
}

/// Writer of the table of kept documents.
pub(crate) struct DocumentWriter {
    table: TableWriter,
    numbers: [Vec<u64>; 3],
    texts: [Vec<String>; 3],
}

impl DocumentWriter {
    /// Creates the table in `dir`.
    pub(crate) fn create(dir: &Path, name: &str) -> Result<Self> {
        let text = |name| Field::new(name, DataType::Utf8, false);
        let number = |name| Field::new(name, DataType::UInt64, false);
        let fields = vec![
            number("ordinal"),
            text("id"),
            text("source"),
            text("split"),
            number("tokens"),
            number("text_bytes"),
        ];
        Ok(Self {
            table: TableWriter::create(dir, name, fields)?,
            numbers: Default::default(),
            texts: Default::default(),
        })
    }

    /// Appends a document; ordinals count up without gaps.
    pub(crate) fn push(&mut self, row: &DocumentRow<'_>) -> Result<()> {
        for (column, value) in self.numbers.iter_mut().zip([row.ordinal, row.tokens, row.text_bytes]) {
            column.push(value);
        }
        for (column, value) in self.texts.iter_mut().zip([row.id, row.source, row.split]) {
            column.push(value.to_owned());
        }
        if self.numbers[0].len() == GROUP_ROWS { self.flush() } else { Ok(()) }
    }

    /// Completes the table.
    pub(crate) fn finish(mut self) -> Result<FileDigest> {
        self.flush()?;
        self.table.finish()
    }

    fn flush(&mut self) -> Result<()> {
        let [ordinal, tokens, text_bytes] = std::mem::take(&mut self.numbers).map(numbers);
        let [id, source, split] = std::mem::take(&mut self.texts).map(texts);
        self.table.write(vec![ordinal, id, source, split, tokens, text_bytes])
    }
}

/// Writer of the ledger of dropped documents.
pub(crate) struct DropWriter {
    table: TableWriter,
    columns: [Vec<String>; 4],
    tokens: Vec<u64>,
}

impl DropWriter {
    /// Creates the ledger in `dir`.
    pub(crate) fn create(dir: &Path, name: &str) -> Result<Self> {
        let mut fields =
            ["id", "source", "rule", "value"].map(|name| Field::new(name, DataType::Utf8, false)).to_vec();
        fields.push(Field::new("tokens", DataType::UInt64, false));
        Ok(Self {
            table: TableWriter::create(dir, name, fields)?,
            columns: Default::default(),
            tokens: Vec::new(),
        })
    }

    /// Appends a document with its tokens as read, those around it included.
    pub(crate) fn push(&mut self, id: &str, source: &str, drop: &DropReason, tokens: u64) -> Result<()> {
        for (column, value) in self.columns.iter_mut().zip([id, source, drop.rule, &drop.value]) {
            column.push(value.to_owned());
        }
        self.tokens.push(tokens);
        if self.columns[0].len() == GROUP_ROWS { self.flush() } else { Ok(()) }
    }

    /// Completes the ledger.
    pub(crate) fn finish(mut self) -> Result<FileDigest> {
        self.flush()?;
        self.table.finish()
    }

    fn flush(&mut self) -> Result<()> {
        let mut columns = std::mem::take(&mut self.columns).map(texts).to_vec();
        columns.push(numbers(std::mem::take(&mut self.tokens)));
        self.table.write(columns)
    }
}

/// Parquet file that is written a row group at a time.
struct TableWriter {
    path: PathBuf,
    name: String,
    schema: SchemaRef,
    writer: ArrowWriter<HashingFile>,
}

impl TableWriter {
    fn create(dir: &Path, name: &str, fields: Vec<Field>) -> Result<Self> {
        let path = dir.join(name);
        let schema = Arc::new(Schema::new(fields));
        let properties = WriterProperties::builder()
            .set_created_by(CREATED_BY.to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).expect("3 is a level")))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        let options = ArrowWriterOptions::new().with_properties(properties);
        let writer = ArrowWriter::try_new_with_options(HashingFile::create(&path)?, schema.clone(), options);
        let writer = writer.map_err(|error| failed(&path, error))?;
        Ok(Self { path, name: name.to_owned(), schema, writer })
    }

    /// Writes the columns as one row group, unless they are empty.
    fn write(&mut self, columns: Vec<ArrayRef>) -> Result<()> {
        let batch = RecordBatch::try_new(self.schema.clone(), columns)
            .expect("columns are of the schema's types and equally long");
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.writer
            .write(&batch)
            .and_then(|()| self.writer.flush())
            .map_err(|error| failed(&self.path, error))
    }

    fn finish(self) -> Result<FileDigest> {
        let file = self.writer.into_inner().map_err(|error| failed(&self.path, error))?;
        let (file, bytes, sha256) = file.finish()?;
        file.commit()?;
        Ok(FileDigest { name: self.name, bytes, sha256 })
    }
}

fn numbers(values: Vec<u64>) -> ArrayRef {
    Arc::new(UInt64Array::from(values))
}

fn texts(values: Vec<String>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

fn failed(path: &Path, error: ParquetError) -> Error {
    Error::io(path, "writing")(std::io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, documents: u64) -> FileDigest {
        let mut writer = DocumentWriter::create(dir, "documents.parquet").expect("creatable");
        for ordinal in 0..documents {
            let id = format!("doc-{ordinal}");
            let row =
                DocumentRow { ordinal, id: &id, source: "web", split: "train", tokens: 3, text_bytes: 9 };
            writer.push(&row).expect("written");
        }
        writer.finish().expect("finished")
    }

    #[test]
    fn ids_are_found_by_ordinal() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write(dir.path(), 20_000);
        let mut index = DocumentIndex::open(dir.path(), "documents.parquet").expect("openable");
        assert_eq!(index.len(), 20_000);
        for ordinal in [0, 19_999, 8191, 8192, 8193, 16_384] {
            assert_eq!(index.id(ordinal).expect("there"), format!("doc-{ordinal}"));
        }
        assert!(index.id(20_000).expect_err("absent").to_string().contains("document 20000 was asked for"));
    }

    #[test]
    fn the_same_rows_give_the_same_bytes() {
        let (a, b) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        assert_eq!(write(a.path(), 9000), write(b.path(), 9000));
        assert_ne!(write(b.path(), 9001).sha256, write(a.path(), 9000).sha256);
    }

    #[test]
    fn empty_tables_are_tables() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write(dir.path(), 0);
        assert!(DocumentIndex::open(dir.path(), "documents.parquet").expect("openable").is_empty());
        DropWriter::create(dir.path(), "drops.parquet").expect("creatable").finish().expect("finished");
    }

    #[test]
    fn a_damaged_table_is_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("documents.parquet"), b"PAR1 no table PAR1").expect("writable");
        let error = DocumentIndex::open(dir.path(), "documents.parquet").expect_err("damaged");
        assert!(error.to_string().starts_with("documents.parquet: "), "{error}");
    }
}
