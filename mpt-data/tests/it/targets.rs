//! The readers of files that anyone can make, each as a function of bytes that must return, and sound files to begin from.
//! Tests change the sound files at random; `cargo xtask fuzz` goes on from there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use flate2::write::GzEncoder;
use mpt_data::interop::mds::{Encoding, MdsDataset, MdsOptions, MdsWriter, Value};
use mpt_data::interop::megatron::{IndexedDataset, MegatronWriter};
use mpt_data::interop::{Dtype, ImportOptions, import};
use mpt_data::manifest::ManifestContents;
use mpt_data::{Loader, LoaderConfig, Manifest, NoProgress, PrepareRun, Split, inspect, plan, prepare};
use mpt_tokenize::{Tokenizer, TrainConfig};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A reader.
pub(crate) struct Target {
    /// What it reads, the name of its fuzzing target too.
    pub(crate) name: &'static str,
    /// Reads; errors are answers.
    pub(crate) read: fn(&[u8]),
    /// Sound files.
    pub(crate) sound: fn() -> Vec<Vec<u8>>,
}

/// All readers.
pub(crate) const TARGETS: [Target; 7] = [
    Target { name: "compressed", read: compressed, sound: sound_compressed },
    Target { name: "jsonl", read: jsonl, sound: sound_jsonl },
    Target { name: "manifest", read: manifest, sound: sound_manifest },
    Target { name: "mds_index", read: mds_index, sound: sound_mds_index },
    Target { name: "mds_shard", read: mds_shard, sound: sound_mds_shard },
    Target { name: "megatron", read: megatron, sound: sound_megatron },
    Target { name: "shard", read: shard, sound: sound_shard },
];

/// A folder of this process with data in each format.
struct Folder {
    dir: TempDir,
    tokenizer: Tokenizer,
    manifest: Manifest,
    shard: Vec<u8>,
    index: Vec<u8>,
}

const MIX: &str = "tokenizer = \"tokenizer.json\"\nseq_len = 8\neval_fraction = 0.0\n[[sources]]\nname = \"s\"\n\
    proportion = 1.0\npaths = [\"s.jsonl\"]\nformat = \"jsonl\"\nfilters = [{ kind = \"column\", field = \"n\", none_of = [\"9\"] }]\n";
const LINES: &str = "{\"id\": \"a\", \"text\": \"river stone cloud leaf moon river stone cloud leaf\", \"n\": 1.0}\n\
    {\"id\": 7, \"text\": \"a \\u00e9 \\ud83c\\udf0a wave and another one of it\", \"n\": null, \"x\": [NaN, {\"y\": \"\\ud800\"}]}\n";
const SHARD: &str = "data/train/s/00000.parquet";

static FOLDER: LazyLock<Folder> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| dir.path().join(name);
    let config = TrainConfig { vocab_size: 300, min_frequency: 2 };
    let bytes = mpt_tokenize::train(["river stone".to_owned()].into_iter(), &config).expect("trained");
    fs::write(at("tokenizer.json"), &bytes).expect("writable");
    let tokenizer = Tokenizer::from_bytes(bytes, Path::new("tokenizer.json")).expect("sound");
    fs::write(at("s.jsonl"), LINES).expect("writable");
    let mut run = PrepareRun::parse(MIX, &at("mix.toml")).expect("sound");
    run.out = at("data");
    let manifest = prepare(&run, &tokenizer, &mut NoProgress).expect("built");
    let columns = [("tokens".to_owned(), Encoding::Bytes)];
    let mut writer = MdsWriter::create(&at("mds"), &columns, MdsOptions::default()).expect("creatable");
    for sample in 0..3u64 {
        let ids = (sample..sample + 16).flat_map(u64::to_le_bytes).collect();
        writer.push(&[Value::Bytes(ids)]).expect("written");
    }
    writer.finish().expect("finished");
    let (shard, index) =
        (fs::read(at(SHARD)).expect("readable"), fs::read(at("mds/index.json")).expect("readable"));
    Folder { dir, tokenizer, manifest, shard, index }
});

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file anew: one that is mapped is never shortened.
    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("has one")).expect("creatable");
        let _ = fs::remove_file(&path);
        fs::write(path, bytes).expect("writable");
    }
}

/// A source of JSON Lines.
fn jsonl(bytes: &[u8]) {
    read_lines("s.jsonl", bytes);
}

fn read_lines(name: &str, bytes: &[u8]) {
    let folder = &*FOLDER;
    folder.put(&format!("lines/{name}"), bytes);
    for skip in ["", "on_bad_line = \"skip\"\n"] {
        let mix = format!("{MIX}{skip}").replace("tokenizer.json", "../tokenizer.json");
        let mix = mix.replace("s.jsonl", name);
        let run = PrepareRun::parse(&mix, &folder.path("lines/mix.toml")).expect("sound");
        let _ = plan(&run, &folder.tokenizer, None, &mut NoProgress);
    }
}

/// A compressed source, under the name of each compression.
fn compressed(bytes: &[u8]) {
    ["s.jsonl.gz", "s.jsonl.zst"].into_iter().for_each(|name| read_lines(name, bytes));
}

fn sound_compressed() -> Vec<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(LINES.as_bytes()).expect("compressed");
    let gzip = gzip.finish().expect("compressed");
    let zstd = zstd::encode_all(LINES.as_bytes(), 3).expect("compressed");
    vec![gzip.clone(), zstd, [gzip.clone(), gzip, vec![0; 40]].concat()]
}

fn sound_jsonl() -> Vec<Vec<u8>> {
    vec![LINES.into(), LINES.replace('\n', "\r\n").into(), format!("\u{feff}{LINES}").into()]
}

/// Data as training reads it.
fn use_data(manifest: &Manifest) {
    let _ = inspect(manifest, None);
    let _ = manifest.find_damage(&mut NoProgress);
    let _ = manifest.documents().and_then(|mut documents| documents.id(1).map(str::to_owned));
    for split in Split::ALL {
        if let Ok(loader) = Loader::new(manifest, LoaderConfig::new(manifest, split), None) {
            let _ = loader.take(4).collect::<Result<Vec<_>, _>>();
        }
    }
}

/// The contents of a manifest, whose hash is made right.
fn manifest(bytes: &[u8]) {
    let folder = &*FOLDER;
    folder.put("data/manifest.json", bytes);
    let _ = Manifest::open(&folder.path("data"));
    let Ok(contents) = serde_json::from_slice::<ManifestContents>(bytes) else { return };
    let sum = Sha256::digest(serde_json::to_vec(&contents).expect("writable"));
    let root: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    let wire = serde_json::json!({ "root": root, "contents": contents });
    folder.put("data/manifest.json", wire.to_string().as_bytes());
    if let Ok(manifest) = Manifest::open(&folder.path("data")) {
        use_data(&manifest);
    }
}

fn sound_manifest() -> Vec<Vec<u8>> {
    vec![serde_json::to_vec(FOLDER.manifest.contents()).expect("writable")]
}

/// A shard, as long as the manifest says.
fn shard(bytes: &[u8]) {
    let folder = &*FOLDER;
    let mut bytes = bytes.to_vec();
    bytes.resize(folder.shard.len(), 0);
    folder.put(SHARD, &bytes);
    use_data(&folder.manifest);
    folder.put(SHARD, &folder.shard);
}

fn sound_shard() -> Vec<Vec<u8>> {
    vec![FOLDER.shard.clone()]
}

/// Reads all samples of an MDS dataset, and makes data of it.
fn use_mds(dir: &Path) {
    let folder = &*FOLDER;
    if let Ok(dataset) = MdsDataset::open(dir) {
        for shard in dataset.shards() {
            let Ok(mut samples) = dataset.samples(shard, false) else { continue };
            while let Ok(Some(sample)) = samples.next_sample() {
                (0..sample.columns.len()).for_each(|column| drop(sample.value(column)));
            }
        }
    }
    let options = ImportOptions { token_dtype: Some(Dtype::I64), seq_len: Some(8), ..Default::default() };
    let out = folder.path("imported");
    let _ = import(dir, &out, &folder.tokenizer, &options, &mut NoProgress);
    let _ = fs::remove_dir_all(out);
}

/// The index of a dataset whose shard is sound.
fn mds_index(bytes: &[u8]) {
    let folder = &*FOLDER;
    folder.put("mds/index.json", bytes);
    use_mds(&folder.path("mds"));
    folder.put("mds/index.json", &folder.index);
}

fn sound_mds_index() -> Vec<Vec<u8>> {
    vec![FOLDER.index.clone()]
}

/// A shard whose index says how long it is.
fn mds_shard(bytes: &[u8]) {
    let folder = &*FOLDER;
    let mut index: serde_json::Value = serde_json::from_slice(&folder.index).expect("JSON");
    index["shards"][0]["raw_data"]["bytes"] = bytes.len().into();
    folder.put("shards/index.json", index.to_string().as_bytes());
    folder.put("shards/shard.00000.mds", bytes);
    use_mds(&folder.path("shards"));
}

fn sound_mds_shard() -> Vec<Vec<u8>> {
    vec![fs::read(FOLDER.path("mds/shard.00000.mds")).expect("readable")]
}

/// The index of an indexed dataset.
fn megatron(bytes: &[u8]) {
    let folder = &*FOLDER;
    folder.put("indexed/d.bin", &[0; 64]);
    folder.put("indexed/d.idx", bytes);
    let Ok(indexed) = IndexedDataset::open(&folder.path("indexed/d")) else { return };
    if let Ok(mut documents) = indexed.read() {
        while let Ok(true) = documents.next_document(|_| Ok(())) {}
    }
}

fn sound_megatron() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let prefix = dir.path().join("d");
    let mut writer = MegatronWriter::create(&prefix, Dtype::U16).expect("creatable");
    for document in [&[1, 2, 3][..], &[], &[4; 20]] {
        writer.push(document).and_then(|()| writer.end_document()).expect("written");
    }
    writer.finish().expect("finished");
    vec![fs::read(dir.path().join("d.idx")).expect("readable")]
}
