//! Object storage: whatever a store does wrong, the right data comes out, or an error that says what to do, in bounded time.

mod faulty;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mpt_data::remote::{CacheOptions, ReadMode, RemoteOptions, configure, mount, unmount};
use mpt_data::{Error, ErrorKind, Loader, LoaderConfig, Manifest, Sample, Split};
use proptest::prelude::*;

use crate::corpus::Corpus;
use faulty::{Faults, Faulty};

/// A store that was mounted for one test.
struct Mounted {
    root: String,
    store: Arc<Faulty>,
}

impl Mounted {
    fn new(store: Arc<Faulty>, options: RemoteOptions) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let root = format!("mount://test{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        mount(&root, store.clone(), options).expect("mountable");
        Self { root, store }
    }

    fn at(&self, key: &str) -> PathBuf {
        PathBuf::from(format!("{}/{key}", self.root))
    }

    fn requests(&self) -> usize {
        self.store.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.root);
    }
}

fn options(mode: ReadMode) -> RemoteOptions {
    RemoteOptions {
        mode,
        initial_backoff: Duration::from_millis(1),
        memory_bytes: 0,
        ..RemoteOptions::default()
    }
}

fn cached(mode: ReadMode, dir: &Path, limit: u64) -> RemoteOptions {
    RemoteOptions { cache: Some(CacheOptions { dir: dir.to_owned(), limit }), ..options(mode) }
}

fn samples(manifest: &Manifest, count: u64) -> mpt_data::Result<Vec<Sample>> {
    let config = LoaderConfig { seed: 5, ..LoaderConfig::new(manifest, Split::Train) };
    let mut loader = Loader::new(manifest, config, None)?;
    (0..count).map(|index| loader.sample(index)).collect()
}

/// Bytes of all files below a folder.
fn size(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let of = |path: PathBuf| {
        if path.is_dir() { size(&path) } else { path.metadata().map_or(0, |data| data.len()) }
    };
    entries.flatten().map(|entry| of(entry.path())).sum()
}

/// Pages in a cache, and their bytes.
fn pages(cache: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(cache.join("pages")).expect("a cache").flatten().map(|entry| entry.path());
    let files =
        folders.filter(|path| path.is_dir()).flat_map(|folder| fs::read_dir(folder).expect("listable"));
    files.flatten().map(|entry| entry.path()).collect()
}

#[test]
fn samples_are_those_of_the_local_data_whatever_goes_wrong() {
    let (corpus, local) = Corpus::new().build_kept();
    let expected = samples(&local, 300).expect("sound");
    let mode = prop_oneof![Just(ReadMode::Chunks), (1..40_u64).prop_map(ReadMode::Rows)];
    let strategy = (any::<u64>(), 0..900_u64, mode, any::<bool>(), any::<bool>());
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&strategy, |(seed, rate, mode, with_cache, with_memory)| {
            let cache = tempfile::tempdir().expect("a temporary folder");
            let mut options = options(mode);
            options.cache = with_cache.then(|| CacheOptions { dir: cache.path().to_owned(), limit: 60_000 });
            options.memory_bytes = if with_memory { 20_000 } else { 0 };
            let store = Faulty::with_folder(
                &corpus.path("out"),
                "data",
                Faults { seed, rate, times: 2, ..Faults::NONE },
            );
            let mounted = Mounted::new(store, options);
            let manifest = Manifest::open(&mounted.at("data")).expect("opened");
            prop_assert_eq!(manifest.root(), local.root());
            prop_assert_eq!(&samples(&manifest, 300).expect("right in the end"), &expected);
            manifest.documents().expect("readable").id(3).expect("there");
            Ok(())
        })
        .expect("holds");
}

#[test]
fn a_store_that_always_fails_is_an_error_after_a_bounded_number_of_requests() {
    let (corpus, _) = Corpus::new().build_kept();
    for seed in 0..6 {
        let faults = Faults { seed, rate: 1000, times: usize::MAX, ..Faults::NONE };
        let store = Faulty::with_folder(&corpus.path("out"), "data", faults);
        let mounted = Mounted::new(store, options(ReadMode::Chunks));
        let address = mounted.at("data").display().to_string();
        match Manifest::open(&mounted.at("data")).and_then(|manifest| samples(&manifest, 50)) {
            Err(error @ Error::Remote { .. }) => {
                assert_eq!(error.kind(), ErrorKind::System);
                assert!(error.to_string().starts_with(&address), "{error}");
                let source = std::error::Error::source(&error).expect("the store's answer");
                assert!(source.to_string().contains("503 Slow Down"), "{source}");
            }
            other => panic!("{:?}", other.map(|samples| samples.len())),
        }
        assert!(mounted.requests() < 20, "{}", mounted.requests());
    }
}

#[test]
fn a_cache_of_two_pages_works_and_never_exceeds_its_limit() {
    let (corpus, local) = Corpus::new().build_kept();
    let before = size(&corpus.path("out"));
    let cache = tempfile::tempdir().expect("a temporary folder");
    // A row has 64 bytes of tokens and 20 of meta.
    let limit = 2 * 16 * (64 + 20);
    let store = Faulty::with_folder(&corpus.path("out"), "data", Faults::NONE);
    let mounted = Mounted::new(store, cached(ReadMode::Rows(16), cache.path(), limit));
    let manifest = Manifest::open(&mounted.at("data")).expect("opened");
    let config = LoaderConfig { seed: 5, ..LoaderConfig::new(&local, Split::Train) };
    let mut loader = Loader::new(&manifest, config.clone(), None).expect("openable");
    let mut expected = Loader::new(&local, config, None).expect("openable");
    let mut seen = 0;
    for index in 0..120 {
        assert_eq!(loader.sample(index).expect("sound"), expected.sample(index).expect("sound"));
        let held: u64 = pages(cache.path()).iter().map(|path| size_of(path)).sum();
        assert!(held <= limit, "{held}");
        seen = seen.max(pages(cache.path()).len());
    }
    assert!((2..=3).contains(&seen), "{seen}: the last page of a group may be small");
    assert_eq!(size(&corpus.path("out")), before, "local files are no cache");
}

fn size_of(path: &Path) -> u64 {
    path.metadata().map_or(0, |data| data.len())
}

#[test]
fn pages_come_from_the_cache_and_damaged_ones_are_fetched_again() {
    let (corpus, local) = Corpus::new().build_kept();
    let expected = samples(&local, 100).expect("sound");
    let cache = tempfile::tempdir().expect("a temporary folder");
    let options = || cached(ReadMode::Chunks, cache.path(), 10 << 20);
    let store = Faulty::with_folder(&corpus.path("out"), "data", Faults::NONE);
    let mounted = Mounted::new(store.clone(), options());
    let manifest = Manifest::open(&mounted.at("data")).expect("opened");
    assert_eq!(samples(&manifest, 100).expect("sound"), expected);
    let requests = mounted.requests();
    assert_eq!(samples(&manifest, 100).expect("sound"), expected);
    assert_eq!(mounted.requests(), requests, "all was kept");
    for page in pages(cache.path()) {
        let mut bytes = fs::read(&page).expect("readable");
        bytes.iter_mut().step_by(50).for_each(|byte| *byte ^= 4);
        fs::write(&page, bytes).expect("written");
    }
    fs::write(cache.path().join("pages/page.tmp"), [1; 1000]).expect("what a killed process leaves");
    let again = Mounted::new(store, options());
    let manifest = Manifest::open(&again.at("data")).expect("opened");
    assert!(!cache.path().join("pages/page.tmp").exists());
    assert_eq!(samples(&manifest, 100).expect("healed"), expected);
}

#[test]
fn what_is_wrong_in_the_store_is_named_by_shard_and_row() {
    let (corpus, local) = Corpus::new().build_kept();
    let file = &local.sources()[0].train.files[0];
    let store = Faulty::with_folder(&corpus.path("out"), "data", Faults::NONE);
    let mounted = Mounted::new(store.clone(), options(ReadMode::Rows(8)));
    let manifest = Manifest::open(&mounted.at("data")).expect("opened");
    let sound = fs::read(corpus.path("out").join(&file.path)).expect("readable");
    assert_eq!(manifest.find_damage(&mut mpt_data::NoProgress).expect("read"), []);
    let mut bytes = sound.clone();
    bytes[file.groups[0].tokens.base as usize + 3 * 64] ^= 1;
    let key = format!("data/{}", file.path);
    store.write(&key, bytes);
    let error = samples(&manifest, 4000).expect_err("damaged").to_string();
    let expected =
        format!("{}: row 3: does not match its checksum or is another shard's, fetched 6 times", file.path);
    assert!(error.starts_with(&expected), "{error}");
    let damage = manifest.find_damage(&mut mpt_data::NoProgress).expect("read");
    assert_eq!((damage.len(), damage[0].row), (1, Some(3)), "{damage:?}");
    store.write(&key, sound[..sound.len() - 1].to_vec());
    let error = samples(&manifest, 4000).expect_err("short").to_string();
    assert!(error.contains(&format!("has {} bytes, expected {}", sound.len() - 1, sound.len())), "{error}");
    store.delete(&key);
    let error = samples(&manifest, 4000).expect_err("missing").to_string();
    assert!(error.starts_with(&format!("{}: is missing", file.path)), "{error}");
    assert_eq!(manifest.find_damage(&mut mpt_data::NoProgress).expect("read")[0].row, None);
}

#[test]
fn data_is_built_from_objects_as_from_files() {
    let corpus = Corpus::new();
    let store = Faulty::with_folder(
        corpus.dir.path(),
        "raw/v1",
        Faults { seed: 9, rate: 500, times: 3, ..Faults::NONE },
    );
    let local = corpus.build(&[]);
    let mut small = options(ReadMode::Chunks);
    small.piece_bytes = 1000;
    let mounted = Mounted::new(store.clone(), small);
    let base = format!("{}/raw/v1", mounted.root);
    let [web, books, code] = ["web/*", "books/*.txt", "code/part.parquet"]
        .map(|pattern| (format!("\"{pattern}\""), format!("\"{base}/{pattern}\"")));
    let changes: Vec<_> = [&web, &books, &code].map(|(from, to)| (from.as_str(), to.as_str())).to_vec();
    let mut run = corpus.run(&changes).expect("sound");
    run.out = corpus.path("from-objects");
    let build = || mpt_data::prepare(&run, &corpus.tokenizer(), &mut mpt_data::NoProgress);
    let built = build().expect("built");
    for (a, b) in built.sources().iter().zip(local.sources()) {
        assert_eq!((a.documents, a.tokens, &a.drops), (b.documents, b.tokens, &b.drops));
    }
    assert_eq!(samples(&built, 2000).expect("sound"), samples(&local, 2000).expect("sound"));
    let input = &built.plan().sources[0].inputs[0];
    assert!(input.name == "a.jsonl" && input.sha256.starts_with("etag "), "{input:?}");
    store.write("raw/v1/books/03.txt", b"another book".to_vec());
    let error = build().expect_err("changed").to_string();
    assert!(error.contains("sources.books.inputs.03.txt."), "{error}");
    let mut run = run.clone();
    run.sources[0].paths = vec![format!("{base}/nothing/*.jsonl")];
    let error = mpt_data::prepare(&run, &corpus.tokenizer(), &mut mpt_data::NoProgress).expect_err("nothing");
    assert!(error.to_string().contains("no file matches mount://"), "{error}");
}

#[test]
fn batches_are_fetched_ahead_and_hold_what_they_hold_locally() {
    let (corpus, local) = Corpus::new().build_kept();
    let store = Faulty::with_folder(
        &corpus.path("out"),
        "data",
        Faults { seed: 4, rate: 300, times: 1, ..Faults::NONE },
    );
    let base = LoaderConfig::new(&local, Split::Train);
    let config = |rank| LoaderConfig { seed: 5, batch_size: 8, world_size: 2, rank, ..base.clone() };
    for mode in [ReadMode::Rows(4), ReadMode::Chunks] {
        let mounted = Mounted::new(store.clone(), RemoteOptions { memory_bytes: 1 << 20, ..options(mode) });
        let manifest = Manifest::open(&mounted.at("data")).expect("opened");
        for rank in 0..2 {
            let open = |manifest| Loader::new(manifest, config(rank), None).expect("openable");
            for (found, expected) in open(&manifest).zip(open(&local)).take(60) {
                assert_eq!(found.expect("sound"), expected.expect("sound"));
            }
        }
        let eval = LoaderConfig { split: Split::Eval, ..config(1) };
        let open = |manifest| Loader::new(manifest, eval.clone(), None).expect("openable");
        let all = |loader: Loader| loader.map(|batch| batch.expect("sound")).collect::<Vec<_>>();
        assert_eq!(all(open(&manifest)), all(open(&local)));
    }
}

#[test]
fn a_request_without_an_answer_gets_a_second_one_beside_it() {
    let (corpus, local) = Corpus::new().build_kept();
    let faults = Faults { stuck_every: 60, ..Faults::NONE };
    let store = Faulty::with_folder(&corpus.path("out"), "data", faults);
    let mounted = Mounted::new(store, options(ReadMode::Rows(1)));
    let begun = std::time::Instant::now();
    let manifest = Manifest::open(&mounted.at("data")).expect("opened");
    assert_eq!(samples(&manifest, 200).expect("sound"), samples(&local, 200).expect("sound"));
    assert!(mounted.requests() > 200, "{}: some were stuck", mounted.requests());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn a_web_server_that_gives_ranges_is_a_store() {
    let (corpus, local) = Corpus::new().build_kept();
    let cache = tempfile::tempdir().expect("a temporary folder");
    let address = server::serve(corpus.dir.path());
    configure(&address, cached(ReadMode::Chunks, cache.path(), 10 << 20)).expect("reachable");
    let data = PathBuf::from(format!("{address}/out"));
    let manifest = Manifest::open(&data).expect("opened");
    assert_eq!(samples(&manifest, 100).expect("sound"), samples(&local, 100).expect("sound"));
    assert_eq!(manifest.find_damage(&mut mpt_data::NoProgress).expect("read"), []);
    let error = Manifest::open(&PathBuf::from(format!("{address}/none"))).expect_err("nothing").to_string();
    assert!(error.starts_with(&format!("{address}/none/manifest.json: there is no such object")), "{error}");
}
