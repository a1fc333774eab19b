//! Reader of Parquet: a document per row. Only the needed columns are read, a row at a time.

mod cell_reader;
mod checked_pages;
mod page_header;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_schema::Schema;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::ChunkReader;

use self::cell_reader::{Cell, CellKind, CellReader};
use super::{DEFAULT_ID_FIELD, FieldNames, Record, RecordSink, SourceFile, check_size};
use crate::blob::Blob;
use crate::document::Document;
use crate::error::{Error, Result};
use crate::file_digest::sha256_of;
use crate::panic_guard::catch_panic;

/// Rows between two progress reports.
const PROGRESS_ROWS: u64 = 64;

pub(super) fn read(wanted: &FieldNames<'_>, file: &SourceFile<'_>, sink: RecordSink<'_>) -> Result<()> {
    let table = ParquetInput::open(file)?;
    let columns =
        ProjectedColumns::find(wanted, &table).map_err(|problem| Error::input(file.path, problem))?;
    let (bytes, mut row, mut counted) = (table.blob.bytes(file.path)?, 0u64, 0);
    for group in 0..table.metadata.num_row_groups() {
        let mut cells = table.cells(&columns, group)?;
        for _ in 0..table.rows_of(group)? {
            let values = table.with_parquet_errors(|| {
                cells.iter_mut().map(CellReader::next).collect::<Result<Vec<_>, _>>()
            })?;
            let id = || format!("{}:{row}", file.name());
            match columns.document(values, id) {
                Ok(document) => sink(Record::Document(document))?,
                Err(problem) => {
                    let error = |problem| Error::input(file.path, format!("row {row}: {problem}"));
                    wanted.bad_line(id(), problem, sink, error)?;
                }
            }
            row += 1;
            if row.is_multiple_of(PROGRESS_ROWS) || row == table.rows {
                let reached = (u128::from(bytes) * u128::from(row) / u128::from(table.rows.max(1))) as u64;
                file.progress.fetch_add(reached.saturating_sub(counted), Ordering::Relaxed);
                counted = reached;
            }
        }
    }
    table.check()
}

/// Open file with its footer.
struct ParquetInput<'a> {
    file: &'a SourceFile<'a>,
    blob: Arc<Blob>,
    metadata: ParquetMetaData,
    schema: Schema,
    rows: u64,
}

impl<'a> ParquetInput<'a> {
    fn open(file: &'a SourceFile<'a>) -> Result<Self> {
        let blob = Blob::open(file.path)?;
        let footer = || {
            let metadata = ParquetMetaDataReader::new().parse_and_finish(&blob)?;
            // Plain Parquet types are enough; hints of writers would add dictionaries and views.
            let schema = parquet_to_arrow_schema(metadata.file_metadata().schema_descr(), None)?;
            Ok::<_, ParquetError>((metadata, schema))
        };
        let (metadata, schema) = with_parquet_errors(file, footer)?;
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        Ok(Self { file, blob: Arc::new(blob), metadata, schema, rows })
    }

    fn rows_of(&self, group: usize) -> Result<u64> {
        let rows = self.metadata.row_group(group).num_rows();
        u64::try_from(rows).map_err(|_| damaged(self.file, &format!("row group {group} has {rows} rows")))
    }

    /// Readers of the projected columns of a row group.
    fn cells(&self, columns: &ProjectedColumns, group: usize) -> Result<Vec<CellReader>> {
        let group = self.metadata.row_group(group);
        let open = || {
            let one =
                |wanted: &ProjectedColumn| CellReader::open(&self.blob, group, wanted.leaf, wanted.kind);
            columns.columns.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        self.with_parquet_errors(open)
    }

    fn with_parquet_errors<T>(&self, call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
        with_parquet_errors(self.file, call)
    }

    /// Compares the whole file, through the handle of the rows, with the plan.
    fn check(&self) -> Result<()> {
        // Every request for an object names the planned version.
        let Blob::Local(_) = &*self.blob else { return Ok(()) };
        let whole = self.with_parquet_errors(|| self.blob.get_read(0))?;
        let found = sha256_of(whole, self.file.path, |_| Ok(()))?;
        let planned = self.file.planned;
        if found == (planned.sha256.clone(), planned.bytes) {
            return Ok(());
        }
        Err(Error::InputChanged { path: self.file.path.to_owned() })
    }
}

/// Result of a call of the library, whose errors and panics mean a damaged file.
fn with_parquet_errors<T>(
    file: &SourceFile<'_>,
    call: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T> {
    match catch_panic(call) {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(Error::unread(file.path, format!("not a sound Parquet file ({error})"), error)),
        Err(panic) => Err(damaged(file, &panic)),
    }
}

fn damaged(file: &SourceFile<'_>, problem: &str) -> Error {
    Error::input(file.path, format!("not a sound Parquet file ({problem})"))
}

/// Columns of a file that are read.
struct ProjectedColumns {
    /// Columns, each once.
    columns: Vec<ProjectedColumn>,
    text: usize,
    id: Option<usize>,
    id_is_required: bool,
    fields: Vec<usize>,
}

struct ProjectedColumn {
    name: String,
    /// Index among the leaf columns.
    leaf: usize,
    kind: CellKind,
}

impl ProjectedColumns {
    fn find(wanted: &FieldNames<'_>, table: &ParquetInput<'_>) -> Result<Self, String> {
        let mut found = Self {
            columns: Vec::new(),
            text: 0,
            id: None,
            id_is_required: wanted.id.is_some(),
            fields: Vec::new(),
        };
        found.text = found.column_index(wanted.text, table)?;
        found.id = match wanted.id {
            Some(name) => Some(found.column_index(name, table)?),
            // A default id column of another type is ignored.
            None => found.column_index(DEFAULT_ID_FIELD, table).ok(),
        };
        for name in &wanted.fields {
            let column_index = found.column_index(name, table)?;
            found.fields.push(column_index);
        }
        Ok(found)
    }

    /// Index of a column among those that are read; an unread one is added.
    fn column_index(&mut self, name: &str, table: &ParquetInput<'_>) -> Result<usize, String> {
        if let Some(known) = self.columns.iter().position(|column| column.name == name) {
            return Ok(known);
        }
        let names: Vec<_> = table.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let root = names.iter().position(|other| *other == name).ok_or_else(|| {
            let suggestion = crate::runfile::nearest(name, names.iter().copied());
            let suggestion =
                suggestion.map(|suggestion| format!(", did you mean `{suggestion}`?")).unwrap_or_default();
            format!("there is no column `{name}`{suggestion} (columns: {})", names.join(", "))
        })?;
        let kind = table.schema.field(root).data_type();
        let odd = || format!("column `{name}` has type {kind}, expected text, numbers or booleans");
        let descr = table.metadata.file_metadata().schema_descr();
        let leaf = (0..descr.num_columns()).find(|&leaf| descr.get_column_root_idx(leaf) == root);
        let kind = CellKind::of(kind).ok_or_else(odd)?;
        self.columns.push(ProjectedColumn { name: name.to_owned(), leaf: leaf.ok_or_else(odd)?, kind });
        Ok(self.columns.len() - 1)
    }

    fn document(&self, cells: Vec<Cell>, fallback: impl FnOnce() -> String) -> Result<Document, String> {
        let value = |column: usize| {
            let named = |problem| format!("column `{}`: {problem}", self.columns[column].name);
            cells[column].text().map_err(named)
        };
        if let Cell::Bytes(bytes) = &cells[self.text] {
            check_size(bytes.len())?;
        }
        let text = value(self.text)?.ok_or("the text is null")?;
        let id = match self.id {
            Some(column) if self.id_is_required => value(column)?,
            Some(column) => value(column).unwrap_or(None),
            None => None,
        };
        if id.is_none() && self.id_is_required {
            return Err("the id is null, in the column that `id_field` names".to_owned());
        }
        let fields = self.fields.iter().map(|column| value(*column)).collect::<Result<_, _>>()?;
        Ok(Document { id: id.unwrap_or_else(fallback), text, fields })
    }
}
