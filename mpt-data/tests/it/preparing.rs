//! What preparation makes: all text, in order, once; the ledger; the same bytes every time.

use std::fs::File;

use arrow_array::cast::AsArray;
use mpt_data::{Loader, LoaderConfig, Manifest, NoProgress, Note, Phase, Progress, Split, prepare};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::corpus::{Corpus, tree};

#[test]
fn every_document_stays_once_or_is_in_the_ledger() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    let [web, books, code] = manifest.sources() else { panic!("three sources") };
    assert_eq!((web.documents, books.documents, code.documents), (270, 12, 90));
    // b.jsonl repeats documents 110..120 of a.jsonl; of those 119 is too short in both.
    assert_eq!(web.drops["min_words"], 27);
    assert_eq!(web.drops["exact_duplicate"], 9);
    assert_eq!(code.drops["column"], 30);
    for source in manifest.sources() {
        let dropped: u64 = source.drops.values().sum();
        assert_eq!(
            source.train.documents + source.eval.documents + dropped,
            source.documents,
            "{}",
            source.name
        );
        for split in [&source.train, &source.eval] {
            assert_eq!(split.rows * 32 + split.tail_tokens, split.tokens);
        }
    }
    let held_out: u64 = manifest.sources().iter().map(|source| source.eval.documents).sum();
    assert!((10..60).contains(&held_out), "about a tenth of 306: {held_out}");
    manifest.verify().expect("sound");
}

#[test]
fn the_ledger_names_documents_and_reasons() {
    let corpus = Corpus::new();
    corpus.build(&[]);
    let file = File::open(corpus.path("out/drops.parquet")).expect("there");
    let mut rows = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("readable") {
        let batch = batch.expect("sound");
        let text = |name: &str, row: usize| {
            batch.column_by_name(name).expect("a column").as_string::<i32>().value(row).to_owned()
        };
        rows.extend(
            (0..batch.num_rows()).map(|row| ["id", "source", "rule", "value"].map(|name| text(name, row))),
        );
    }
    let row =
        |id: &str| rows.iter().find(|row| row[0] == id).unwrap_or_else(|| panic!("{id} is in the ledger"));
    assert_eq!(*row("a9"), ["a9", "web", "min_words", "5"]);
    assert_eq!(*row("b110"), ["b110", "web", "exact_duplicate", "a110"]);
    assert_eq!(*row("part.parquet:1"), ["part.parquet:1", "code", "column", "lang=c"]);
    assert_eq!(rows.len(), 27 + 9 + 30);
}

/// Undoes packing: the text of every document, from the tokens and the starts.
fn documents(manifest: &Manifest, split: Split) -> Vec<String> {
    let tokenizer = mpt_tokenize::Tokenizer::from_file(&manifest.tokenizer_path()).expect("loadable");
    let mut texts = Vec::new();
    for source in manifest.sources() {
        let mut ids: Vec<u32> = Vec::new();
        for file in &source.split(split).files {
            let reader = ParquetRecordBatchReaderBuilder::try_new(
                File::open(manifest.dir().join(&file.path)).expect("there"),
            );
            for batch in reader.expect("Parquet").build().expect("readable") {
                let batch = batch.expect("sound");
                let cells = batch.column_by_name("tokens").expect("a column").as_fixed_size_binary();
                ids.extend(cells.iter().flatten().flat_map(|cell| {
                    cell.chunks_exact(2)
                        .map(|id| u32::from(u16::from_le_bytes([id[0], id[1]])))
                        .collect::<Vec<_>>()
                }));
            }
        }
        let whole = ids.split_inclusive(|&id| id == 0).filter(|document| document.last() == Some(&0));
        texts.extend(
            whole.map(|document| tokenizer.decode(&document[..document.len() - 1]).expect("decoded")),
        );
    }
    texts
}

#[test]
fn shards_hold_the_texts_themselves_in_order() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[("eval_fraction = 0.1", "eval_fraction = 0.0")]);
    let texts = documents(&manifest, Split::Train);
    let mut wanted: Vec<_> =
        (0..260).filter(|i| i % 10 != 9).map(|i| crate::corpus::words(i, 40 + i % 30)).collect();
    let web = wanted.len();
    wanted.extend((0..12).map(|i| crate::corpus::words(1000 + i, 400)));
    wanted.extend((0..90).filter(|i| i % 3 != 1).map(|i| crate::corpus::words(2000 + i, 50)));
    // The last document of a source may end in the tail.
    let missing: Vec<_> =
        wanted.iter().enumerate().filter(|(_, text)| !texts.contains(text)).map(|(i, _)| i).collect();
    assert!(missing.iter().all(|i| [web - 1, web + 11, wanted.len() - 1].contains(i)), "{missing:?}");
    assert_eq!(texts[..web - 1], wanted[..web - 1]);
}

#[test]
fn splits_share_no_text_even_without_dedup() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[("seed = 3", "seed = 3\ndedup = \"none\"")]);
    assert!(!manifest.sources()[0].drops.contains_key("exact_duplicate"));
    let (train, eval) = (documents(&manifest, Split::Train), documents(&manifest, Split::Eval));
    assert!(!eval.is_empty() && eval.iter().all(|text| !train.contains(text)));
}

#[test]
fn threads_change_nothing() {
    let corpus = Corpus::new();
    corpus.build(&[]);
    let expected = tree(&corpus.path("out"));
    for threads in [1, 3] {
        std::fs::remove_dir_all(corpus.path("out")).expect("removable");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| corpus.build(&[]));
        assert!(tree(&corpus.path("out")) == expected, "{threads} threads");
    }
}

#[test]
fn the_place_of_the_files_changes_nothing() {
    let (here, there) = (Corpus::new(), Corpus::new());
    assert_eq!(here.build(&[]).root(), there.build(&[]).root());
}

#[derive(Default)]
struct Notes {
    notes: Vec<Note>,
    stages: Vec<Phase>,
}

impl Progress for Notes {
    fn start(&mut self, stage: Phase, _: u64) {
        self.stages.push(stage);
    }
    fn advance(&mut self, _: u64) {}
    fn finish(&mut self) {}
    fn note(&mut self, note: &Note) {
        self.notes.push(note.clone());
    }
}

#[test]
fn building_again_does_nothing_and_says_so() {
    let corpus = Corpus::new();
    let first = corpus.build(&[]);
    let mut notes = Notes::default();
    let again = prepare(&corpus.run(&[]).expect("sound"), &corpus.tokenizer(), &mut notes).expect("built");
    assert_eq!(first, again);
    assert_eq!((&notes.notes[..], &notes.stages[..]), (&[Note::AlreadyBuilt][..], &[Phase::Hash][..]));
    let error = corpus.build_error(&[("seed = 3", "seed = 4")]);
    assert!(error.contains("this data was built differently") && error.contains("seed"), "{error}");
    corpus.write("books/00.txt", "changed");
    assert!(corpus.build_error(&[]).contains("books"));
}

#[test]
fn wide_vocabularies_and_begin_tokens_work() {
    let corpus = Corpus::new();
    let bos = [("seed = 3", "seed = 3\nbos = \"<|padding|>\"\nrow_tokens = 16")];
    let manifest = corpus.build(&bos);
    let config = LoaderConfig { seq_len: 64, ..LoaderConfig::new(&manifest, Split::Train) };
    let mut loader = Loader::new(&manifest, config, None).expect("openable");
    let sample = loader.sample(0).expect("sound");
    for at in 1..64 {
        let starts = sample.documents[at] != sample.documents[at - 1];
        assert_eq!(starts, sample.tokens[at] == 1, "a document starts where its first token is");
        assert_eq!(starts, sample.tokens[at - 1] == 0);
    }
    prepare(&corpus.run(&bos).expect("sound"), &corpus.tokenizer(), &mut NoProgress).expect("the same again");
}
