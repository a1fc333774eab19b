//! Conversion: our data to other formats and back, and what becomes of document starts.

use std::fs;
use std::path::Path;

use mpt_data::interop::mds::{Encoding, MdsDataset, MdsOptions, MdsWriter, Value};
use mpt_data::interop::{
    BoundaryTokens, Dtype, ExportFormat, ExportOptions, ImportOptions, ImportSummary, export, import, rewrite,
};
use mpt_data::{Error, Manifest, NoProgress, Note, Phase, Progress, Split};

use crate::corpus::{Corpus, tree};

fn to_mds(seq_len: Option<usize>) -> ExportOptions {
    ExportOptions { target: ExportFormat::Mds { options: MdsOptions::default(), seq_len }, token_dtype: None }
}

fn to_megatron() -> ExportOptions {
    ExportOptions { target: ExportFormat::Megatron, token_dtype: None }
}

fn import_from(
    corpus: &Corpus,
    input: &str,
    out: &str,
    options: &ImportOptions,
) -> mpt_data::Result<ImportSummary> {
    import(&corpus.path(input), &corpus.path(out), &corpus.tokenizer(), options, &mut NoProgress)
}

/// The tokens of a source of an MDS dataset, sample by sample.
fn mds_samples(dir: &Path, folder: &str) -> Vec<Vec<u32>> {
    let (dataset, mut all) = (MdsDataset::open(dir).expect("an index"), Vec::new());
    for shard in dataset.shards().iter().filter(|shard| shard.folder() == Path::new(folder)) {
        let mut samples = dataset.samples(shard, true).expect("sound");
        while let Some(sample) = samples.next_sample().expect("sound") {
            let Value::Numbers(numbers) = sample.value(0).expect("sound") else { panic!("an array") };
            assert_eq!(numbers.dtype, Dtype::U16);
            all.push(
                numbers.data.chunks(2).map(|id| u32::from(u16::from_le_bytes([id[0], id[1]]))).collect(),
            );
        }
    }
    all
}

#[test]
fn mds_and_back_is_the_same_rows_and_starts() {
    let corpus = Corpus::new();
    let ours = corpus.build(&[]);
    let done = export(&ours, &corpus.path("mds"), &to_mds(None), &mut NoProgress).expect("exported");
    assert_eq!(done.token_dtype, Dtype::U16);
    let back = import_from(&corpus, "mds", "back", &ImportOptions::default()).expect("imported").manifest;
    back.verify().expect("sound");
    assert_eq!(back.plan().seq_len, 32, "the length of the samples");
    let all: u64 = ours.sources().iter().map(|source| source.train.rows).sum();
    for ((before, after), exported) in ours.sources().iter().zip(back.sources()).zip(&done.sources) {
        assert_eq!((exported.samples, exported.left_out), (before.train.rows, 0));
        assert_eq!((&after.name, after.train.rows), (&before.name, before.train.rows));
        let mpt_data::Share::Proportion(share) = after.proportion else { panic!("{after:?}") };
        assert!((share - before.train.rows as f64 / all as f64).abs() < 1e-12);
    }
    export(&back, &corpus.path("mds-again"), &to_mds(None), &mut NoProgress).expect("exported");
    assert_eq!(tree(&corpus.path("mds")), tree(&corpus.path("mds-again")));
    // EOS stands after every document and nowhere else in this corpus, so starts are found again.
    export(&ours, &corpus.path("starts"), &to_megatron(), &mut NoProgress).expect("exported");
    export(&back, &corpus.path("starts-again"), &to_megatron(), &mut NoProgress).expect("exported");
    assert_eq!(tree(&corpus.path("starts")), tree(&corpus.path("starts-again")));
}

#[test]
fn samples_can_have_another_length() {
    let corpus = Corpus::new();
    let ours = corpus.build(&[]);
    export(&ours, &corpus.path("a"), &to_mds(None), &mut NoProgress).expect("exported");
    let done = export(&ours, &corpus.path("b"), &to_mds(Some(50)), &mut NoProgress).expect("exported");
    for source in &done.sources {
        let (whole, cut) =
            (mds_samples(&corpus.path("a"), &source.name), mds_samples(&corpus.path("b"), &source.name));
        assert!(cut.iter().all(|sample| sample.len() == 50) && cut.len() as u64 == source.samples);
        assert_eq!(whole.concat()[..cut.len() * 50], cut.concat());
        assert_eq!(whole.concat().len() as u64, source.tokens + source.left_out);
    }
}

#[test]
fn megatron_and_back_keeps_every_document() {
    let corpus = Corpus::new();
    let ours = corpus.build(&[]);
    let done = export(&ours, &corpus.path("megatron"), &to_megatron(), &mut NoProgress).expect("exported");
    let options = ImportOptions { seq_len: Some(32), ..ImportOptions::default() };
    let back = import_from(&corpus, "megatron", "back", &options).expect("imported").manifest;
    back.verify().expect("sound");
    // Folders come in the order of their names.
    let counts = |source: &mpt_data::manifest::SourceRecord| (source.name.clone(), source.documents);
    let mut expected: Vec<_> =
        done.sources.iter().map(|source| (source.name.clone(), source.samples)).collect();
    expected.sort();
    assert_eq!(back.sources().iter().map(counts).collect::<Vec<_>>(), expected);
    export(&back, &corpus.path("again"), &to_megatron(), &mut NoProgress).expect("exported");
    assert_eq!(tree(&corpus.path("megatron")), tree(&corpus.path("again")));
    assert!(back.contents().eos_id.is_none());
    let one = import_from(&corpus, "megatron/web/tokens.idx", "one", &options).expect("imported").manifest;
    assert_eq!(one.sources()[0].name, "tokens");
    assert_eq!(one.tokens(Split::Train), 32 * ours.sources()[0].train.rows);
}

#[test]
fn document_starts_come_from_tokens_or_samples() {
    let corpus = Corpus::new();
    let sample = |ids: &[i64]| vec![Value::Bytes(ids.iter().flat_map(|id| id.to_le_bytes()).collect())];
    let mut writer =
        MdsWriter::create(&corpus.path("in"), &[("ids".into(), Encoding::Bytes)], MdsOptions::default())
            .expect("creatable");
    for ids in [[5, 6, 0, 7], [8, 9, 10, 0], [1, 11, 12, 1]] {
        writer.push(&sample(&ids)).expect("written");
    }
    writer.finish().expect("finished");
    let token = |id| Some((id, format!("<{id}>")));
    for (out, bos, eos, documents) in [
        ("a", None, token(0), 3),
        ("b", token(1), token(0), 4),
        ("c", token(1), None, 3),
        ("d", None, None, 3),
    ] {
        let options = ImportOptions {
            column: "ids".into(),
            token_dtype: Some(Dtype::I64),
            boundaries: Some(BoundaryTokens { bos, eos }),
            ..ImportOptions::default()
        };
        let manifest = import_from(&corpus, "in", out, &options).expect("imported").manifest;
        assert_eq!(manifest.sources()[0].train.documents, documents, "{out}");
        assert_eq!((manifest.sources()[0].name.as_str(), manifest.plan().seq_len), ("in", 4));
        manifest.verify().expect("sound");
    }
    let error =
        |options: &ImportOptions| import_from(&corpus, "in", "e", options).expect_err("refused").to_string();
    let said = error(&ImportOptions::default());
    assert!(said.contains("`column`: ") && said.contains("has no column `tokens`; it has `ids`"), "{said}");
    let said = error(&ImportOptions { column: "ids".into(), ..ImportOptions::default() });
    assert!(said.contains("`token-dtype`: column `ids` of ") && said.contains("int64"), "{said}");
    assert!(!corpus.path("e").exists());
}

#[test]
fn ids_outside_of_the_vocabulary_name_the_sample() {
    let corpus = Corpus::new();
    let ids: Vec<u8> = [3u16, 60_000].iter().flat_map(|id| id.to_le_bytes()).collect();
    let mut writer =
        MdsWriter::create(&corpus.path("in"), &[("tokens".into(), Encoding::Bytes)], MdsOptions::default())
            .expect("creatable");
    writer.push(&[Value::Bytes(ids[..2].to_vec())]).expect("written");
    writer.push(&[Value::Bytes(ids)]).expect("written");
    writer.finish().expect("finished");
    let options = ImportOptions { token_dtype: Some(Dtype::U16), ..ImportOptions::default() };
    let error = import_from(&corpus, "in", "out", &options).expect_err("refused").to_string();
    assert!(
        error.contains("shard.00000.mds: sample 1: column `tokens`: id 60000 is not in the vocabulary"),
        "{error}"
    );
    assert!(!corpus.path("out").exists() && !corpus.path(".out.partial").exists());
}

#[test]
fn the_same_input_gives_the_same_bytes_and_is_done_once() {
    let corpus = Corpus::new();
    export(&corpus.build(&[]), &corpus.path("mds"), &to_mds(None), &mut NoProgress).expect("exported");
    let options = ImportOptions::default();
    import_from(&corpus, "mds", "x", &options).expect("imported");
    import_from(&corpus, "mds", "y", &options).expect("imported");
    assert_eq!(tree(&corpus.path("x")), tree(&corpus.path("y")));
    let mut heard = Heard::default();
    import(&corpus.path("mds"), &corpus.path("x"), &corpus.tokenizer(), &options, &mut heard).expect("there");
    assert_eq!(heard.notes, [Note::AlreadyBuilt]);
    let other = ImportOptions { seq_len: Some(16), ..options };
    let error = import_from(&corpus, "mds", "x", &other).expect_err("other").to_string();
    assert!(error.contains("seq_len was 32, is now 16"), "{error}");
    let error = export(
        &Manifest::open(&corpus.path("x")).expect("data"),
        &corpus.path("y"),
        &to_mds(None),
        &mut NoProgress,
    );
    assert!(matches!(error, Err(Error::Taken { .. })));
}

#[test]
fn an_interrupted_conversion_leaves_nothing() {
    let corpus = Corpus::new();
    let ours = corpus.build(&[]);
    export(&ours, &corpus.path("mds"), &to_mds(None), &mut NoProgress).expect("exported");
    let mut stopped = Heard { stop: true, ..Heard::default() };
    let options = ImportOptions::default();
    let result = import(&corpus.path("mds"), &corpus.path("x"), &corpus.tokenizer(), &options, &mut stopped);
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    assert!(!corpus.path("x").exists() && !corpus.path(".x.partial").exists());
}

#[test]
fn a_dataset_is_written_again_with_other_compression() {
    let corpus = Corpus::new();
    export(&corpus.build(&[]), &corpus.path("mds"), &to_mds(None), &mut NoProgress).expect("exported");
    let plain = MdsOptions::default();
    let zstd = MdsOptions { codec: "zstd".parse().ok(), ..plain.clone() };
    let samples =
        rewrite(&corpus.path("mds"), &corpus.path("zstd"), &zstd, true, &mut NoProgress).expect("written");
    assert!(samples > 100 && corpus.path("zstd/web/shard.00000.mds.zstd").is_file());
    rewrite(&corpus.path("zstd"), &corpus.path("again"), &plain, true, &mut NoProgress).expect("written");
    assert_eq!(tree(&corpus.path("mds")), tree(&corpus.path("again")));
}

#[test]
fn folders_without_data_are_refused() {
    let corpus = Corpus::new();
    fs::create_dir_all(corpus.path("empty/sub")).expect("creatable");
    let error =
        import_from(&corpus, "empty", "out", &ImportOptions::default()).expect_err("empty").to_string();
    assert!(error.contains("empty: holds no data that can be converted"), "{error}");
    let error =
        import_from(&corpus, "absent", "out", &ImportOptions::default()).expect_err("absent").to_string();
    assert!(error.contains("absent: is neither a folder nor"), "{error}");
}

/// Listens, and stops the work where it is told to.
#[derive(Default)]
struct Heard {
    notes: Vec<Note>,
    stop: bool,
}

impl Progress for Heard {
    fn start(&mut self, _: Phase, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn finish(&mut self) {}

    fn note(&mut self, note: &Note) {
        self.notes.push(note.clone());
    }

    fn keep_going(&mut self) -> bool {
        !self.stop
    }
}

/// A dataset of one column `tokens`, one sample a shard.
fn write_mds(dir: &Path, encoding: &str, values: &[Value]) {
    let columns = [("tokens".to_owned(), encoding.parse::<Encoding>().expect("an encoding"))];
    let mut writer = MdsWriter::create(dir, &columns, MdsOptions::default()).expect("creatable");
    values.iter().for_each(|value| writer.push(std::slice::from_ref(value)).expect("written"));
    writer.finish().expect("finished");
}

fn import_error(corpus: &Corpus, input: &str, options: &ImportOptions) -> String {
    let error = import_from(corpus, input, "back", options).expect_err("refused").to_string();
    assert!(!corpus.path("back").exists());
    error
}

#[test]
fn splits_of_a_dataset_are_not_trained_on_together() {
    let corpus = Corpus::new();
    export(&corpus.build(&[]), &corpus.path("mds"), &to_mds(None), &mut NoProgress).expect("exported");
    for (from, to) in [("web", "train"), ("books", "val_small")] {
        fs::create_dir_all(corpus.path("splits")).expect("creatable");
        fs::rename(corpus.path("mds").join(from), corpus.path("splits").join(to)).expect("movable");
    }
    let error = import_error(&corpus, "splits", &ImportOptions::default());
    assert!(error.contains("holds the splits train, val_small") && error.contains("splits/train"), "{error}");
    import_from(&corpus, "splits/train", "back", &ImportOptions::default()).expect("one of them");
}

#[test]
fn a_shard_counts_once() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    export(&manifest, &corpus.path("mds"), &to_mds(None), &mut NoProgress).expect("exported");
    let path = corpus.path("mds/index.json");
    let mut index: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
    let shards = index["shards"].as_array_mut().expect("a list");
    shards.push(shards[0].clone());
    let last = shards.len() - 1;
    fs::write(&path, index.to_string()).expect("writable");
    let error = import_error(&corpus, "mds", &ImportOptions::default());
    assert!(error.contains(&format!("shard {last}: is web/shard.00000.mds, as shard 0 is")), "{error}");
    let again =
        rewrite(&corpus.path("mds"), &corpus.path("back"), &MdsOptions::default(), true, &mut NoProgress);
    assert!(again.is_err() && !corpus.path("back").exists());
}

#[test]
fn tokens_twice_as_wide_as_they_are_said_to_be_are_told() {
    let corpus = Corpus::new();
    let ids = (0..64u64).flat_map(|id| (id % 200).to_le_bytes()).collect();
    write_mds(&corpus.path("mds"), "bytes", &[Value::Bytes(ids)]);
    let options = |dtype| ImportOptions {
        token_dtype: Some(dtype),
        seq_len: Some(32),
        boundaries: Some(BoundaryTokens::default()),
        ..ImportOptions::default()
    };
    for (dtype, wide) in [(Dtype::I32, 8), (Dtype::U16, 4)] {
        let error = import_error(&corpus, "mds", &options(dtype));
        assert!(error.contains(&format!("its tokens have {wide} bytes or more")), "{error}");
    }
    import_from(&corpus, "mds", "back", &options(Dtype::I64)).expect("what they are");
}

/// A shard of a few bytes whose sample would have 4 GiB.
#[test]
fn a_small_shard_does_not_fill_memory() {
    let corpus = Corpus::new();
    let bytes = u64::from(u32::MAX);
    let mut head = [1u32, 14, u32::MAX].map(u32::to_le_bytes).concat();
    head.extend([b'{', b'}']);
    let zeros = std::io::Read::take(std::io::repeat(0), 300 << 20);
    let shard = zstd::encode_all(std::io::Read::chain(&head[..], zeros), 1).expect("compressed");
    corpus.write_bytes("mds/shard.00000.mds.zstd", &shard);
    let index = format!(
        r#"{{"version": 2, "shards": [{{"version": 2, "format": "mds", "column_names": ["tokens"], "column_encodings": ["bytes"],
        "column_sizes": [null], "compression": "zstd", "samples": 1, "raw_data": {{"basename": "shard.00000.mds", "bytes": {bytes}}},
        "zip_data": {{"basename": "shard.00000.mds.zstd", "bytes": {}}}}}]}}"#,
        shard.len()
    );
    corpus.write("mds/index.json", &index);
    let options = ImportOptions { token_dtype: Some(Dtype::I64), seq_len: Some(32), ..Default::default() };
    let error = import_error(&corpus, "mds", &options);
    assert!(error.contains("sample 0 would have 4294967281 bytes; 268435456 are read at most"), "{error}");
    for (from, to) in [
        (format!("\"bytes\": {bytes}"), "\"bytes\": 4294967296".to_owned()),
        ("\"samples\": 1".into(), "\"samples\": 1152921504606846976".into()),
    ] {
        corpus.write("mds/index.json", &index.replace(&from, &to));
        let error = import_error(&corpus, "mds", &options);
        assert!(error.contains("have 32 bits") || error.contains("bytes cannot hold"), "{error}");
    }
}
