//! A corpus of three small sources in three formats, its tokenizer, and what the tests look at.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use arrow_array::{RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use mpt_data::{Manifest, NoProgress, PrepareRun, prepare};
use mpt_tokenize::{Tokenizer, TrainConfig};

/// A folder with sources, a tokenizer and a mix.
pub(crate) struct Corpus {
    pub(crate) dir: tempfile::TempDir,
}

static TOKENIZER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let texts = (0..200).map(|i| words(i, 60));
    mpt_tokenize::train(texts, &TrainConfig { vocab_size: 400, min_frequency: 2 }).expect("trained")
});

/// `count` words that depend on `seed`.
pub(crate) fn words(seed: usize, count: usize) -> String {
    let draw = |at: usize| ((seed * 1_000_003 + at) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let word = |at: usize| {
        ["tree", "river", "stone", "cloud", "grass", "bird", "moon", "leaf"][draw(at) as usize % 8]
    };
    (0..count).map(|at| format!("{}{}", word(at), draw(at) % 10)).collect::<Vec<_>>().join(" ")
}

impl Corpus {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let corpus = Self { dir };
        fs::write(corpus.path("tokenizer.json"), &*TOKENIZER).expect("writable");
        corpus.write("web/a.jsonl", &jsonl("a", 0..120));
        corpus.write_bytes("web/b.jsonl.gz", &gzip(&jsonl("b", 110..200)));
        corpus.write_bytes(
            "web/c.jsonl.zst",
            &zstd::encode_all(jsonl("c", 200..260).as_bytes(), 3).expect("compressed"),
        );
        for i in 0..12 {
            corpus.write(&format!("books/{i:02}.txt"), &words(1000 + i, 400));
        }
        corpus.write_parquet("code/part.parquet");
        corpus.write("mix.toml", MIX);
        corpus
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        self.write_bytes(name, text.as_bytes());
    }

    pub(crate) fn write_bytes(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("has one")).expect("creatable");
        fs::write(path, bytes).expect("writable");
    }

    fn write_parquet(&self, name: &str) {
        let columns = ["text", "lang"];
        let schema =
            Arc::new(Schema::new(columns.map(|name| Field::new(name, DataType::Utf8, false)).to_vec()));
        let texts: StringArray = (0..90).map(|i| Some(words(2000 + i, 50))).collect();
        let langs: StringArray = (0..90).map(|i| Some(["rust", "c", "go"][i % 3])).collect();
        let batch =
            RecordBatch::try_new(schema.clone(), vec![Arc::new(texts), Arc::new(langs)]).expect("a batch");
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("has one")).expect("creatable");
        let file = fs::File::create(path).expect("creatable");
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, schema, None).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
    }

    /// The mix, with changes to its text.
    pub(crate) fn run(&self, changes: &[(&str, &str)]) -> mpt_data::Result<PrepareRun> {
        let mut text = fs::read_to_string(self.path("mix.toml")).expect("readable");
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let mut run = PrepareRun::parse(&text, &self.path("mix.toml"))?;
        run.out = self.path("out");
        Ok(run)
    }

    pub(crate) fn tokenizer(&self) -> Tokenizer {
        Tokenizer::from_file(&self.path("tokenizer.json")).expect("loadable")
    }

    pub(crate) fn try_build(&self, changes: &[(&str, &str)]) -> mpt_data::Result<Manifest> {
        prepare(&self.run(changes)?, &self.tokenizer(), &mut NoProgress)
    }

    pub(crate) fn build(&self, changes: &[(&str, &str)]) -> Manifest {
        self.try_build(changes).expect("built")
    }

    pub(crate) fn build_error(&self, changes: &[(&str, &str)]) -> String {
        self.try_build(changes).expect_err("refused").to_string()
    }
}

const MIX: &str = r#"
tokenizer = "tokenizer.json"
seed = 3
seq_len = 32
eval_fraction = 0.1

[[sources]]
name = "web"
proportion = 0.5
paths = ["web/*"]
format = "jsonl"
filters = [{ kind = "min_words", value = 20 }]

[[sources]]
name = "books"
proportion = 0.3
paths = ["books/*.txt"]
format = "text"

[[sources]]
name = "code"
proportion = 0.2
paths = ["code/part.parquet"]
format = "parquet"
filters = [{ kind = "column", field = "lang", any_of = ["rust", "go"] }]
"#;

/// Documents `range`, every tenth too short for the filter.
fn jsonl(prefix: &str, range: std::ops::Range<usize>) -> String {
    let line = |i: usize| {
        let text = words(i, if i % 10 == 9 { 5 } else { 40 + i % 30 });
        format!("{{\"id\": \"{prefix}{i}\", \"text\": \"{text}\"}}\n")
    };
    range.map(line).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).expect("compressed");
    encoder.finish().expect("compressed")
}

/// Every file of a folder with its bytes.
pub(crate) fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("listable") {
        let path = entry.expect("listable").path();
        if path.is_dir() {
            files.extend(
                tree(&path)
                    .into_iter()
                    .map(|(name, bytes)| (Path::new(path.file_name().expect("named")).join(name), bytes)),
            );
        } else {
            files.insert(path.file_name().expect("named").into(), fs::read(&path).expect("readable"));
        }
    }
    files
}
