//! Parquet: a row per document, of which only the wanted columns are read.

use std::sync::atomic::Ordering;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::{DEFAULT_ID, InputFile, Record, Sink, Wanted, check_size};
use crate::blob::Blob;
use crate::document::Document;
use crate::error::{Error, Result};

/// Rows decoded at once: few, since a row may be a book.
const BATCH_ROWS: usize = 64;

pub(super) fn read(wanted: &Wanted<'_>, file: &InputFile<'_>, sink: Sink<'_>) -> Result<()> {
    let handle = Blob::open(file.path)?;
    let bytes = handle.bytes(file.path)?;
    let damaged =
        |error: ParquetError| Error::input(file.path, format!("not a sound Parquet file ({error})"));
    // The plain Parquet types are enough, and fewer than what writers hint at (dictionaries, views).
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(handle, options).map_err(damaged)?;
    let columns = Columns::find(wanted, &builder).map_err(|problem| Error::input(file.path, problem))?;
    let total = builder.metadata().file_metadata().num_rows().max(1) as u64;
    let mask = ProjectionMask::roots(builder.parquet_schema(), columns.roots.iter().copied());
    let batches = builder.with_batch_size(BATCH_ROWS).with_projection(mask).build().map_err(damaged)?;
    let (mut row, mut counted) = (0, 0);
    for batch in batches {
        let batch = batch.map_err(|error| damaged(error.into()))?;
        for index in 0..batch.num_rows() {
            let id = || format!("{}:{row}", file.name);
            match columns.document(&batch, index, id) {
                Ok(document) => sink(Record::Document(document))?,
                Err(problem) => {
                    let error = |problem| Error::input(file.path, format!("row {row}: {problem}"));
                    wanted.bad_line(id(), problem, sink, error)?;
                }
            }
            row += 1;
        }
        let reached = (u128::from(bytes) * row as u128 / u128::from(total)) as u64;
        file.progress.fetch_add(reached - counted, Ordering::Relaxed);
        counted = reached;
    }
    Ok(())
}

/// Where the wanted columns are: in the file, and in the batches read from it.
struct Columns {
    roots: Vec<usize>,
    text: usize,
    id: Option<usize>,
    id_is_required: bool,
    fields: Vec<usize>,
}

impl Columns {
    fn find(wanted: &Wanted<'_>, builder: &ParquetRecordBatchReaderBuilder<Blob>) -> Result<Self, String> {
        let names: Vec<_> = builder.schema().fields().iter().map(|field| field.name().as_str()).collect();
        let root = |name: &str| {
            names.iter().position(|other| *other == name).ok_or_else(|| {
                let near = crate::runfile::nearest(name, names.iter().copied());
                let near = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
                format!("there is no column `{name}`{near} (columns: {})", names.join(", "))
            })
        };
        let text = root(wanted.text)?;
        let id = match wanted.id {
            Some(name) => Some(root(name)?),
            None => root(DEFAULT_ID).ok(),
        };
        let fields = wanted.fields.iter().map(|name| root(name)).collect::<Result<Vec<_>, _>>()?;
        let mut roots: Vec<_> = fields.iter().copied().chain([text]).chain(id).collect();
        roots.sort_unstable();
        roots.dedup();
        let place = |root: usize| roots.binary_search(&root).expect("every wanted column is read");
        let fields = fields.into_iter().map(place).collect();
        Ok(Self {
            text: place(text),
            id: id.map(place),
            id_is_required: wanted.id.is_some(),
            fields,
            roots: roots.clone(),
        })
    }

    fn document(
        &self,
        batch: &RecordBatch,
        row: usize,
        fallback: impl FnOnce() -> String,
    ) -> Result<Document, String> {
        let value = |column: usize| {
            let name = batch.schema().field(column).name().clone();
            value(batch.column(column), row).map_err(|kind| {
                format!("column `{name}` has type {kind}, expected text, numbers or booleans")
            })
        };
        let text = value(self.text)?.ok_or("the text is null")?;
        check_size(text.len())?;
        let id = match self.id {
            Some(column) => value(column)?,
            None => None,
        };
        if id.is_none() && self.id_is_required {
            return Err("the id is null, in the column that `id_field` names".to_owned());
        }
        let fields = self.fields.iter().map(|column| value(*column)).collect::<Result<_, _>>()?;
        Ok(Document { id: id.unwrap_or_else(fallback), text, fields })
    }
}

/// A cell as text; the type's name where it cannot be text.
fn value(column: &ArrayRef, row: usize) -> Result<Option<String>, String> {
    if column.is_null(row) {
        return Ok(None);
    }
    let text = match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).to_owned(),
        DataType::Utf8View => column.as_string_view().value(row).to_owned(),
        DataType::Binary => utf8(column.as_binary::<i32>().value(row))?,
        DataType::LargeBinary => utf8(column.as_binary::<i64>().value(row))?,
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).to_string(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).to_string(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).to_string(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).to_string(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).to_string(),
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).to_string(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
        other => return Err(other.to_string()),
    };
    Ok(Some(text))
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "binary that is not UTF-8".to_owned())
}
