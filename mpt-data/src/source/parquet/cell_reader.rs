//! Reader of the cells of one column in one row group. Bytes are shared with their page.

use std::sync::Arc;

use arrow_schema::DataType;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType as Physical};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::RowGroupMetaData;

use super::checked_pages::CheckedPages;
use crate::blob::Blob;
use crate::source::MAX_DOCUMENT_BYTES;

/// Kind of a column, by which its values become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CellKind {
    Bytes,
    Boolean,
    Signed,
    Unsigned,
    Float,
}

impl CellKind {
    /// Kind of a type; `None` for a type that is no text, number or boolean.
    pub(super) fn of(kind: &DataType) -> Option<Self> {
        match kind {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Self::Bytes),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Some(Self::Bytes),
            DataType::Boolean => Some(Self::Boolean),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(Self::Signed),
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Some(Self::Unsigned),
            DataType::Float32 | DataType::Float64 => Some(Self::Float),
            _ => None,
        }
    }
}

/// Value of a cell.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Null,
    Bytes(ByteArray),
    Other(String),
}

impl Cell {
    /// Value as text; `None` for null.
    pub(super) fn text(&self) -> std::result::Result<Option<String>, String> {
        let bytes = match self {
            Self::Null => return Ok(None),
            Self::Other(text) => return Ok(Some(text.clone())),
            Self::Bytes(bytes) => bytes.data(),
        };
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(format!(
                "{} bytes, more than the {MAX_DOCUMENT_BYTES} a value may have",
                bytes.len()
            ));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let at = error.valid_up_to();
            format!("byte {at} is not UTF-8; convert the column, or leave it out")
        })?;
        Ok(Some(text.to_owned()))
    }
}

/// Reader of the cells of a column.
pub(super) struct CellReader {
    reader: ColumnReader,
    kind: CellKind,
    levels: Vec<i16>,
}

impl CellReader {
    /// Reader before the first cell of a column in a row group.
    pub(super) fn open(
        blob: &Arc<Blob>,
        group: &RowGroupMetaData,
        leaf: usize,
        kind: CellKind,
    ) -> Result<Self> {
        let chunk = group.column(leaf);
        let pages = CheckedPages::open(blob.clone(), chunk, group.num_rows())?;
        let reader = get_column_reader(chunk.column_descr_ptr(), Box::new(pages));
        Ok(Self { reader, kind, levels: Vec::new() })
    }

    /// Next cell.
    pub(super) fn next(&mut self) -> Result<Cell> {
        let (levels, kind) = (&mut self.levels, self.kind);
        let other = |text: Option<String>| text.map_or(Cell::Null, Cell::Other);
        let unsigned = kind == CellKind::Unsigned;
        Ok(match &mut self.reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                one(reader, levels)?.map_or(Cell::Null, Cell::Bytes)
            }
            ColumnReader::BoolColumnReader(reader) => {
                other(one(reader, levels)?.map(|flag| flag.to_string()))
            }
            ColumnReader::Int32ColumnReader(reader) => {
                let text = |number: i32| {
                    if unsigned { number.cast_unsigned().to_string() } else { number.to_string() }
                };
                other(one(reader, levels)?.map(text))
            }
            ColumnReader::Int64ColumnReader(reader) => {
                let text = |number: i64| {
                    if unsigned { number.cast_unsigned().to_string() } else { number.to_string() }
                };
                other(one(reader, levels)?.map(text))
            }
            ColumnReader::FloatColumnReader(reader) => other(one(reader, levels)?.map(|x| x.to_string())),
            ColumnReader::DoubleColumnReader(reader) => other(one(reader, levels)?.map(|x| x.to_string())),
            ColumnReader::Int96ColumnReader(_) | ColumnReader::FixedLenByteArrayColumnReader(_) => {
                return Err(ParquetError::General("the type of a column and its values differ".into()));
            }
        })
    }
}

/// Next value of a column; `None` for null.
fn one<T: Physical>(reader: &mut ColumnReaderImpl<T>, levels: &mut Vec<i16>) -> Result<Option<T::T>> {
    let mut values = Vec::with_capacity(1);
    levels.clear();
    match reader.read_records(1, Some(levels), None, &mut values)? {
        (1, ..) => Ok(values.pop()),
        _ => Err(ParquetError::EOF("a column ends before its row group does".into())),
    }
}
