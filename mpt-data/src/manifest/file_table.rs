//! File table, `manifest.parquet`: the shards of very large data, beside a `manifest.json` that would take long to read.
//!
//! A row per shard, in the order of the manifest: by split, source and file.
//!
//! | column | holds |
//! |---|---|
//! | `split`, `source` | which part it is of, as numbers |
//! | `path`, `rows`, `bytes` | as in the manifest |
//! | `first_document`, `last_document` | of the rows; a last below the first: not known |
//! | `sha256` | 32 bytes |
//! | `groups` | seven little-endian u64 a row group: its rows, then base, stride and tail of `tokens` and of `meta` |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::contents::{SourceRecord, Split, SplitRecord};
use crate::blob::Blob;
use crate::error::{Damage, Error, Result};
use crate::file_digest::{FileDigest, HashingFile, sha256_file};
use crate::hash;
use crate::layout::{ColumnPages, RowGroup, ShardRecord};
use crate::panic_guard::catch_panic;
use crate::shard::CREATED_BY;

/// Name of the table in the folder.
pub(super) const FILE_TABLE: &str = "manifest.parquet";
/// Rows in a row group, all of which are in memory at once.
const GROUP_ROWS: usize = 8192;
/// Bytes of a row group in the column `groups`.
const GROUP_BYTES: usize = 7 * 8;

/// Writes the shards of all sources to the table of the folder.
pub(super) fn write(dir: &Path, sources: &[SourceRecord]) -> Result<FileDigest> {
    let path = dir.join(FILE_TABLE);
    let failed = |error: ParquetError| Error::io(&path, "writing")(std::io::Error::other(error));
    let field = |name, kind| Field::new(name, kind, false);
    let schema = Arc::new(Schema::new(vec![
        field("split", DataType::UInt32),
        field("source", DataType::UInt32),
        field("path", DataType::Utf8),
        field("rows", DataType::UInt64),
        field("bytes", DataType::UInt64),
        field("first_document", DataType::UInt64),
        field("last_document", DataType::UInt64),
        field("sha256", DataType::Binary),
        field("groups", DataType::Binary),
    ]));
    let properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).expect("3 is a level")))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build();
    let mut writer = ArrowWriter::try_new(HashingFile::create(&path)?, schema.clone(), Some(properties))
        .map_err(failed)?;
    let entries: Vec<_> = entries(sources).collect();
    for entries in entries.chunks(GROUP_ROWS) {
        let batch = RecordBatch::try_new(schema.clone(), columns(entries))
            .expect("columns are of the schema's types and equally long");
        writer.write(&batch).map_err(failed)?;
    }
    let (file, bytes, sha256) = writer.into_inner().map_err(failed)?.finish()?;
    file.commit()?;
    Ok(FileDigest { name: FILE_TABLE.into(), bytes, sha256 })
}

/// Reads the shards of the table into the sources, which have none yet.
///
/// # Errors
/// [`Error::Shard`] for another table than the manifest's.
pub(super) fn read(dir: &Path, table: &FileDigest, sources: &mut [SourceRecord]) -> Result<()> {
    let path = dir.join(FILE_TABLE);
    let damaged =
        |problem: String| Error::Shard(Damage { path: PathBuf::from(FILE_TABLE), row: None, problem });
    let (sha256, _) = sha256_file(&path, |_| Ok(()))?;
    if sha256 != table.sha256 {
        return Err(damaged(
            "is not as it was written; restore it, or remove it and run the same build again".into(),
        ));
    }
    catch_panic(|| take_all(&path, sources)).unwrap_or_else(|panic| Err(damaged(panic)))
}

/// Reads the shards of all rows into the sources.
fn take_all(path: &Path, sources: &mut [SourceRecord]) -> Result<()> {
    let damaged =
        |problem: String| Error::Shard(Damage { path: PathBuf::from(FILE_TABLE), row: None, problem });
    let file = Blob::open(path)?;
    let batches = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.with_batch_size(GROUP_ROWS).build())
        .map_err(|error| damaged(error.to_string()))?;
    for batch in batches {
        let batch = batch.map_err(|error| damaged(error.to_string()))?;
        take(&batch, sources).ok_or_else(|| damaged("has other columns or values than it should".into()))?;
    }
    Ok(())
}

/// Split, source and record of a shard.
type ShardEntry<'a> = (u32, u32, &'a ShardRecord);

fn entries(sources: &[SourceRecord]) -> impl Iterator<Item = ShardEntry<'_>> {
    Split::ALL.into_iter().zip(0u32..).flat_map(move |(split, split_number)| {
        sources.iter().zip(0u32..).flat_map(move |(source, number)| {
            source.split(split).files.iter().map(move |file| (split_number, number, file))
        })
    })
}

fn columns(entries: &[ShardEntry<'_>]) -> Vec<ArrayRef> {
    let digits = |file: &ShardRecord| {
        file.sha256
            .as_bytes()
            .chunks(2)
            .map(|pair| {
                let digit =
                    |at: usize| pair.get(at).and_then(|&digit| (digit as char).to_digit(16)).unwrap_or(0);
                (digit(0) * 16 + digit(1)) as u8
            })
            .collect::<Vec<_>>()
    };
    let document =
        |entry: &ShardEntry<'_>, at: usize| entry.2.documents.map_or(1 - at as u64, |range| range[at]);
    let groups = |file: &ShardRecord| file.groups.iter().flat_map(group_bytes).collect::<Vec<_>>();
    vec![
        Arc::new(UInt32Array::from_iter_values(entries.iter().map(|entry| entry.0))),
        Arc::new(UInt32Array::from_iter_values(entries.iter().map(|entry| entry.1))),
        Arc::new(StringArray::from_iter_values(entries.iter().map(|entry| &entry.2.path))),
        Arc::new(UInt64Array::from_iter_values(entries.iter().map(|entry| entry.2.rows))),
        Arc::new(UInt64Array::from_iter_values(entries.iter().map(|entry| entry.2.bytes))),
        Arc::new(UInt64Array::from_iter_values(entries.iter().map(|entry| document(entry, 0)))),
        Arc::new(UInt64Array::from_iter_values(entries.iter().map(|entry| document(entry, 1)))),
        Arc::new(BinaryArray::from_iter_values(entries.iter().map(|entry| digits(entry.2)))),
        Arc::new(BinaryArray::from_iter_values(entries.iter().map(|entry| groups(entry.2)))),
    ]
}

fn group_bytes(group: &RowGroup) -> [u8; GROUP_BYTES] {
    let RowGroup { rows, tokens, meta } = *group;
    let numbers = [rows, tokens.base, tokens.stride, tokens.tail, meta.base, meta.stride, meta.tail];
    let mut bytes = [0; GROUP_BYTES];
    bytes.chunks_exact_mut(8).zip(numbers).for_each(|(at, number)| at.copy_from_slice(&number.to_le_bytes()));
    bytes
}

fn group_of(bytes: &[u8; GROUP_BYTES]) -> RowGroup {
    let (words, _) = bytes.as_chunks::<8>();
    let number = |at: usize| u64::from_le_bytes(words[at]);
    let pages = |at: usize| ColumnPages { base: number(at), stride: number(at + 1), tail: number(at + 2) };
    RowGroup { rows: number(0), tokens: pages(1), meta: pages(4) }
}

/// Appends the shards of a batch to their sources; `None` for a batch of another form.
fn take(batch: &RecordBatch, sources: &mut [SourceRecord]) -> Option<()> {
    let column = |name| batch.column_by_name(name).filter(|column| column.null_count() == 0);
    let split = column("split")?.as_primitive_opt::<UInt32Type>()?;
    let source = column("source")?.as_primitive_opt::<UInt32Type>()?;
    let path = column("path")?.as_string_opt::<i32>()?;
    let rows = column("rows")?.as_primitive_opt::<UInt64Type>()?;
    let bytes = column("bytes")?.as_primitive_opt::<UInt64Type>()?;
    let first = column("first_document")?.as_primitive_opt::<UInt64Type>()?;
    let last = column("last_document")?.as_primitive_opt::<UInt64Type>()?;
    let sha256 = column("sha256")?.as_binary_opt::<i32>()?;
    let groups = column("groups")?.as_binary_opt::<i32>()?;
    for at in 0..batch.num_rows() {
        let (entries, rest) = groups.value(at).as_chunks::<GROUP_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let record = ShardRecord {
            path: path.value(at).to_owned(),
            rows: rows.value(at),
            bytes: bytes.value(at),
            sha256: hash::hex(sha256.value(at)),
            documents: (first.value(at) <= last.value(at)).then(|| [first.value(at), last.value(at)]),
            groups: entries.iter().map(group_of).collect(),
        };
        let source = sources.get_mut(source.value(at) as usize)?;
        split_of(source, split.value(at))?.files.push(record);
    }
    Some(())
}

fn split_of(source: &mut SourceRecord, number: u32) -> Option<&mut SplitRecord> {
    match number {
        0 => Some(&mut source.train),
        1 => Some(&mut source.eval),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, OnBadLine};
    use crate::dedup::Dedup;
    use crate::manifest::{FORMAT, MANIFEST, Manifest, ManifestContents, Plan, SourcePlan, TokenAccount};
    use crate::mixing::{Mixing, Share};
    use crate::{Loader, LoaderConfig};

    const GROUPS: u64 = 5;
    const GROUP: u64 = 2000;

    /// Documents of a file.
    const DOCUMENTS: u64 = 100;

    /// A file of a source; `number` counts those of all.
    fn file(name: &str, place: u64, number: u64) -> ShardRecord {
        let pages = |base: u64| ColumnPages { base, stride: 1 << 20, tail: base + (7 << 20) };
        let group = |group: u64| RowGroup {
            rows: GROUP,
            tokens: pages(4 + (group << 24)),
            meta: pages(9 + (group << 24)),
        };
        ShardRecord {
            path: format!("train/{name}/{place:05}.parquet"),
            rows: GROUPS * GROUP,
            bytes: 128 << 20,
            sha256: hash::sha256(&number.to_le_bytes()),
            documents: (!number.is_multiple_of(3)).then(|| [number * DOCUMENTS, number * DOCUMENTS + 99]),
            groups: (0..GROUPS).map(group).collect(),
        }
    }

    fn contents(sources: u64, files: u64) -> ManifestContents {
        let source = |source: u64| {
            let (name, first_document) = (format!("source-{source}"), source * files * DOCUMENTS);
            let files: Vec<_> = (0..files).map(|place| file(&name, place, source * files + place)).collect();
            let rows: u64 = files.iter().map(|file| file.rows).sum();
            let (documents, tokens) = (files.len() as u64 * DOCUMENTS, rows * 2048);
            SourceRecord {
                name,
                proportion: Share::Proportion(1.0 / sources as f64),
                documents,
                drops: Default::default(),
                tokens: TokenAccount { tokens_read: tokens, tokens_kept: tokens, ..TokenAccount::default() },
                train: SplitRecord {
                    documents,
                    first_document,
                    tokens,
                    rows,
                    files,
                    ..SplitRecord::default()
                },
                eval: SplitRecord { first_document: sources * documents, ..SplitRecord::default() },
            }
        };
        let plan = Plan {
            format: FORMAT,
            seed: 1,
            seq_len: 2048,
            row_tokens: 2048,
            dedup: Dedup::exact(),
            embedder: None,
            eval_fraction: 0.0,
            bos: String::new(),
            eos: String::new(),
            tokenizer: "0".repeat(64),
            vocab_size: 50_277,
            mixing: Mixing::default(),
            sources: (0..sources).map(planned).collect(),
        };
        let sources = (0..sources).map(source).collect();
        ManifestContents {
            plan,
            bos_id: None,
            eos_id: None,
            sources,
            dedup: Vec::new(),
            files: ["documents.parquet", "drops.parquet", "tokenizer.json"].map(plain).into(),
            file_table: None,
        }
    }

    fn planned(source: u64) -> SourcePlan {
        SourcePlan {
            name: format!("source-{source}"),
            proportion: Share::Proportion(0.1),
            format: Format::Jsonl,
            text_field: "text".into(),
            id_field: None,
            token_dtype: None,
            filters: Vec::new(),
            lists: Vec::new(),
            dedup: None,
            on_bad_line: OnBadLine::Fail,
            inputs: Vec::new(),
        }
    }

    fn plain(name: &str) -> FileDigest {
        FileDigest { name: name.into(), bytes: 1, sha256: hash::sha256(name.as_bytes()) }
    }

    fn resident_bytes() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    }

    #[test]
    fn many_shards_stand_in_the_table_and_are_the_same() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (files, in_table) in [(512, false), (513, true)] {
            let contents = contents(2, files);
            let written = Manifest::commit(dir.path(), contents.clone()).expect("written");
            let found = Manifest::open(dir.path()).expect("openable");
            assert_eq!((found.contents().file_table.is_some(), &found), (in_table, &written));
            assert_eq!(found.sources(), contents.sources);
        }
        let table = dir.path().join(FILE_TABLE);
        let mut bytes = std::fs::read(&table).expect("readable");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&table, bytes).expect("writable");
        let error = Manifest::open(dir.path()).expect_err("damaged").to_string();
        assert!(error.starts_with("manifest.parquet: is not as it was written"), "{error}");
    }

    /// 10^9 rows in 10^5 shards: opened from two small files, and at any sample without another one.
    #[test]
    fn the_largest_data_opens_at_once() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Manifest::commit(dir.path(), contents(10, 10_000)).expect("written");
        let bytes = |name: &str| dir.path().join(name).metadata().expect("there").len();
        assert!(bytes(MANIFEST) < 20_000, "{} bytes are parsed as text", bytes(MANIFEST));
        assert!(bytes(FILE_TABLE) < 20_000_000, "{} bytes are read", bytes(FILE_TABLE));
        let before = resident_bytes();
        let manifest = Manifest::open(dir.path()).expect("openable");
        let config = LoaderConfig::new(&manifest, Split::Train);
        // There are no shards here, so that none can be read.
        let mut loader = Loader::new(&manifest, config, None).expect("openable");
        let place = loader.location(&manifest, 123_456_789_012);
        assert_eq!(manifest.tokens(Split::Train), 1_000_000_000 * 2048);
        assert!(place.epoch > 100 && place.row < GROUPS * GROUP, "{place:?}");
        if let (Some(before), Some(after)) = (before, resident_bytes()) {
            assert!(after.saturating_sub(before) < 200_000_000, "{} MB", (after - before) / 1_000_000);
        }
    }
}
