//! Parquet sources: any type of an `id` nobody asked for, documents of any size, and files that lie.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, Float64Array, Int32Array, ListArray, RecordBatch, StringArray, UInt64Array,
    types::Int32Type,
};
use mpt_data::{Error, NoProgress, PrepareRun, is_panic_caught, plan};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::corpus::{Corpus, words};
use crate::dirty::ledger;

fn write(path: &Path, columns: &[(&str, ArrayRef)], properties: WriterProperties) {
    let batch = RecordBatch::try_from_iter(columns.iter().cloned()).expect("a batch");
    std::fs::create_dir_all(path.parent().expect("has one")).expect("creatable");
    let file = File::create(path).expect("creatable");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

fn texts(count: usize) -> ArrayRef {
    Arc::new((0..count).map(|i| Some(words(4000 + i, 50))).collect::<StringArray>())
}

fn langs(count: usize) -> ArrayRef {
    Arc::new((0..count).map(|_| Some("go")).collect::<StringArray>())
}

#[test]
fn an_id_that_cannot_be_one_falls_back_to_file_and_row() {
    let corpus = Corpus::new();
    let lists = (0..90).map(|i| Some(vec![Some(i)]));
    let odd: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists));
    let langs = Arc::new((0..90).map(|i| Some(["go", "c"][i % 2])).collect::<StringArray>());
    let path = corpus.path("code/part.parquet");
    let columns: [(&str, ArrayRef); 3] = [("id", odd), ("text", texts(90)), ("lang", langs)];
    write(&path, &columns, WriterProperties::default());
    let rows = ledger(&corpus.build(&[]));
    assert!(rows.iter().any(|([id, ..], _)| id == "part.parquet:1"));
    std::fs::remove_dir_all(corpus.path("out")).expect("removable");
    let error = corpus.build_error(&[("format = \"parquet\"", "format = \"parquet\"\nid_field = \"id\"")]);
    assert!(error.contains("column `id` has type List"), "{error}");
}

#[test]
fn values_of_every_type_are_text() {
    let corpus = Corpus::new();
    let columns: [(&str, ArrayRef); 5] = [
        ("id", Arc::new(UInt64Array::from_iter_values((0..90).map(|i| u64::MAX - i)))),
        ("text", Arc::new((0..90).map(|i| Some(words(i, 40).into_bytes())).collect::<BinaryArray>())),
        ("lang", Arc::new((0..90).map(|i| (i % 3 > 0).then_some(-i)).collect::<Int32Array>())),
        ("score", Arc::new(Float64Array::from_iter_values((0..90).map(f64::from)))),
        ("flag", Arc::new((0..90).map(|i| Some(i % 2 == 0)).collect::<arrow_array::BooleanArray>())),
    ];
    write(&corpus.path("code/part.parquet"), &columns, WriterProperties::default());
    let any_of = "any_of = [\"rust\", \"go\"]";
    let is_empty = |field: &str, value: &str| {
        let (field, value) = (format!("field = \"{field}\""), format!("any_of = [\"{value}\"]"));
        let built = corpus.try_build(&[("field = \"lang\"", &field), (any_of, &value)]);
        let _ = std::fs::remove_dir_all(corpus.path("out"));
        matches!(built, Err(Error::EmptySource { .. }))
    };
    for (field, value) in [("lang", "-1"), ("score", "7"), ("id", "18446744073709551614")] {
        assert!(!is_empty(field, value), "{field} = {value}");
        assert!(is_empty(field, "no value"), "{field}");
    }
    let manifest = corpus.build(&[("field = \"lang\"", "field = \"flag\""), (any_of, "any_of = [\"true\"]")]);
    assert_eq!(manifest.sources()[2].drops["column"], 45);
}

/// Writes a row at a time, with every value in the dictionary.
fn write_in_dictionary(path: &Path, rows: usize, bytes: usize, others: usize) {
    let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(bytes)]));
    let row =
        |text: ArrayRef| RecordBatch::try_from_iter([("text", text), ("lang", langs(1))]).expect("a batch");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("a level")))
        .set_dictionary_page_size_limit(1 << 30)
        .build();
    let file = File::create(path).expect("creatable");
    let first = row(long.clone());
    let mut writer = ArrowWriter::try_new(file, first.schema(), Some(properties)).expect("a writer");
    (0..rows).for_each(|_| writer.write(&row(long.clone())).expect("written"));
    (0..others).for_each(|i| {
        let text = Arc::new(StringArray::from(vec![words(4000 + i, 50)]));
        writer.write(&row(text)).expect("written");
    });
    writer.close().expect("closed");
}

#[test]
fn long_rows_of_a_small_file_are_refused_one_by_one() {
    let corpus = Corpus::new();
    write_in_dictionary(&corpus.path("code/part.parquet"), 10, (64 << 20) + 1, 50);
    assert!(corpus.path("code/part.parquet").metadata().expect("there").len() < 20_000);
    let error = corpus.build_error(&[]);
    assert!(error.contains("part.parquet: row 0: the document has 67108865 bytes"), "{error}");
    let manifest = corpus.build(&[("format = \"parquet\"", "format = \"parquet\"\non_bad_line = \"skip\"")]);
    assert_eq!(manifest.sources()[2].drops["bad_line"], 10);
}

#[test]
fn a_small_file_that_claims_too_much_is_refused() {
    let corpus = Corpus::new();
    write_in_dictionary(&corpus.path("code/part.parquet"), 1, (256 << 20) + 1, 1);
    let error = corpus.build_error(&[]);
    assert!(
        error.contains("part.parquet: not a sound Parquet file (") && error.contains(" claims "),
        "{error}"
    );
}

#[test]
fn a_document_that_is_too_long_is_named_by_its_row() {
    let corpus = Corpus::new();
    let draw = |i: u64| b'a' + (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 59) as u8 % 26;
    let long = String::from_utf8((0..(64u64 << 20) + 1).map(draw).collect()).expect("ASCII");
    let texts: ArrayRef = Arc::new(
        (0..90).map(|i| Some(if i == 7 { long.clone() } else { words(i, 50) })).collect::<StringArray>(),
    );
    write(
        &corpus.path("code/part.parquet"),
        &[("text", texts), ("lang", langs(90))],
        WriterProperties::builder().set_dictionary_enabled(false).build(),
    );
    let error = corpus.build_error(&[]);
    assert!(error.contains("part.parquet: row 7: the document has 67108865 bytes"), "{error}");
    let manifest = corpus.build(&[("format = \"parquet\"", "format = \"parquet\"\non_bad_line = \"skip\"")]);
    assert_eq!(manifest.sources()[2].drops["bad_line"], 1);
}

/// What becomes of a Parquet file with these bytes: an error, or documents.
fn outcome(corpus: &Corpus, run: &PrepareRun, bytes: &[u8]) -> mpt_data::Result<()> {
    corpus.write_bytes("code/part.parquet", bytes);
    plan(run, &corpus.tokenizer(), None, &mut NoProgress).map(drop)
}

fn samples() -> Vec<Vec<u8>> {
    let corpus = Corpus::new();
    let path = corpus.path("sample.parquet");
    let build = WriterProperties::builder;
    let v2 = parquet::file::properties::WriterVersion::PARQUET_2_0;
    let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(0..40));
    [
        build().build(),
        build().set_dictionary_enabled(false).build(),
        build().set_writer_version(v2).set_dictionary_enabled(false).build(),
        build().set_encoding(Encoding::DELTA_BYTE_ARRAY).set_dictionary_enabled(false).build(),
        build().set_compression(Compression::SNAPPY).set_data_page_row_count_limit(7).build(),
    ]
    .into_iter()
    .map(|properties| {
        let columns = [("text", texts(40)), ("lang", langs(40)), ("id", ids.clone())];
        let columns = if properties.encoding(&"lang".into()) == Some(Encoding::DELTA_BYTE_ARRAY) {
            &columns[..2]
        } else {
            &columns[..]
        };
        write(&path, columns, properties);
        std::fs::read(&path).expect("readable")
    })
    .collect()
}

/// Changes of a file: which sample, bytes and what they become, where it is cut.
type Changes = (usize, Vec<(Index, u8)>, Option<Index>);

fn mutations() -> impl Strategy<Value = Changes> {
    let byte = prop_oneof![any::<u8>(), Just(0xff), Just(0x7f), Just(0x80), Just(0)];
    (
        0..5usize,
        prop::collection::vec((any::<Index>(), byte), 1..6),
        prop::option::weighted(0.1, any::<Index>()),
    )
}

#[test]
fn mutated_files_are_read_or_refused_by_name() {
    let (corpus, samples) = (Corpus::new(), samples());
    let run = corpus
        .run(&[("format = \"parquet\"", "format = \"parquet\"\non_bad_line = \"skip\"")])
        .expect("sound");
    // Panics of the library are caught; those of this thread and of ours are not.
    std::panic::set_hook(Box::new(|info| {
        if !is_panic_caught() {
            eprintln!("{info}");
        }
    }));
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let seed = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(config, seed);
    let result = runner.run(&mutations(), |(sample, edits, cut)| {
        let mut bytes = samples[sample].clone();
        // Half of the changes are in the footer, where most of the form is.
        for (which, (at, byte)) in edits.into_iter().enumerate() {
            let from = if which % 2 == 0 { bytes.len() * 2 / 3 } else { 0 };
            let at = from + at.index(bytes.len() - from);
            bytes[at] = byte;
        }
        if let Some(at) = cut {
            bytes.truncate(at.index(bytes.len()));
        }
        if let Err(error) = outcome(&corpus, &run, &bytes) {
            let text = error.to_string();
            prop_assert!(text.contains("part.parquet: ") || text.contains("source `code`"), "{}", text);
        }
        Ok(())
    });
    result.expect("every file is read or refused");
}
