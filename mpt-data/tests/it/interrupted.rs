//! Stopping anywhere and going on gives the bytes of an unbroken build.

use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::mpsc::{Receiver, Sender, channel};

use mpt_data::{Error, Manifest, NoProgress, Note, Phase, Progress, prepare};

use crate::corpus::{Corpus, tree};

/// Stops when it was asked so many times.
struct StopAfter {
    asked: usize,
    limit: usize,
    continued: bool,
}

impl Progress for StopAfter {
    fn start(&mut self, _: Phase, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn finish(&mut self) {}
    fn note(&mut self, note: &Note) {
        self.continued |= matches!(note, Note::Continued { .. });
    }
    fn keep_going(&mut self) -> bool {
        self.asked += 1;
        self.asked <= self.limit
    }
}

#[test]
fn stopping_at_every_moment_changes_nothing() {
    let corpus = Corpus::new();
    corpus.build(&[]);
    let expected = tree(&corpus.path("out"));
    let (run, tokenizer) = (corpus.run(&[]).expect("sound"), corpus.tokenizer());
    let mut stops = 0;
    for limit in (0..).step_by(7) {
        std::fs::remove_dir_all(corpus.path("out")).expect("removable");
        let mut stop = StopAfter { asked: 0, limit, continued: false };
        match prepare(&run, &tokenizer, &mut stop) {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, Error::Interrupted), "{error}"),
        }
        stops += 1;
        std::fs::create_dir_all(corpus.path("out")).expect("creatable");
        assert!(Manifest::open(&corpus.path("out")).is_err(), "an unfinished build is no data");
        prepare(&run, &tokenizer, &mut NoProgress).expect("continued");
        assert!(tree(&corpus.path("out")) == expected, "stopped at {limit}");
    }
    assert!(stops > 20, "{stops}");
}

#[test]
fn work_that_was_done_is_not_done_again() {
    let corpus = Corpus::new();
    let (run, tokenizer) = (corpus.run(&[]).expect("sound"), corpus.tokenizer());
    let mut stop = StopAfter { asked: 0, limit: 45, continued: false };
    prepare(&run, &tokenizer, &mut stop).expect_err("stopped");
    assert!(std::fs::read_dir(corpus.path("out/.units")).expect("listable").count() > 1);
    stop.limit = usize::MAX;
    prepare(&run, &tokenizer, &mut stop).expect("continued");
    assert!(stop.continued);
}

#[test]
fn what_an_abandoned_build_left_is_replaced() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[("\"books\"", "\"tomes\"")]);
    std::fs::remove_file(corpus.path("out/manifest.json")).expect("removable");
    std::fs::create_dir(corpus.path("out/.units")).expect("creatable");
    std::fs::write(corpus.path("out/.units/0123"), b"half").expect("writable");
    let again = corpus.build(&[]);
    assert_ne!(manifest.root(), again.root());
    assert!(!corpus.path("out/train/tomes").exists() && !corpus.path("out/.units").exists());
    again.verify().expect("sound");
}

#[test]
fn foreign_folders_are_left_alone() {
    let corpus = Corpus::new();
    corpus.write("out/precious.txt", "do not touch");
    let error = corpus.build_error(&[]);
    assert!(error.contains("was not made by a data build"), "{error}");
    assert_eq!(tree(&corpus.path("out")).len(), 1);
}

#[test]
fn finished_data_that_lacks_a_file_is_built_again() {
    let corpus = Corpus::new();
    let (run, tokenizer) = (corpus.run(&[]).expect("sound"), corpus.tokenizer());
    let root = corpus.build(&[]).root().to_owned();
    let expected = tree(&corpus.path("out"));
    let shard = corpus.path("out/train/web/00000.parquet");
    let cut = std::fs::read(&shard).expect("readable")[..100].to_vec();
    for (name, bytes) in
        [("train/web/00000.parquet", Some(cut)), ("eval/web/00000.parquet", None), ("drops.parquet", None)]
    {
        let path = corpus.path("out").join(name);
        match bytes {
            Some(bytes) => std::fs::write(&path, bytes).expect("writable"),
            None => std::fs::remove_file(&path).expect("removable"),
        }
        let manifest = prepare(&run, &tokenizer, &mut NoProgress).expect("built again");
        assert_eq!(manifest.root(), root, "{name}");
        assert!(tree(&corpus.path("out")) == expected, "{name}");
    }
}

#[test]
fn a_manifest_that_is_cut_short_says_what_works() {
    let corpus = Corpus::new();
    corpus.build(&[]);
    let path = corpus.path("out/manifest.json");
    let whole = std::fs::read(&path).expect("readable");
    std::fs::write(&path, &whole[..whole.len() / 2]).expect("writable");
    let error = corpus.build_error(&[]);
    assert!(
        error.contains("manifest.json: ") && error.contains("delete this folder and build the data again"),
        "{error}"
    );
    std::fs::remove_dir_all(corpus.path("out")).expect("removable");
    corpus.build(&[]);
}

/// Stays in the middle of a build, some questions whether to go on after it has locked its place, until it is told to.
struct Waiting {
    lock: PathBuf,
    questions: usize,
    is_there: Sender<()>,
    goes_on: Receiver<()>,
}

impl Progress for Waiting {
    fn start(&mut self, _: Phase, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn finish(&mut self) {}
    fn note(&mut self, _: &Note) {}
    fn keep_going(&mut self) -> bool {
        if self.questions > 0 && self.lock.exists() {
            self.questions -= 1;
            if self.questions == 0 {
                self.is_there.send(()).expect("somebody waits");
                // whoever was to tell may have failed
                return self.goes_on.recv().is_ok();
            }
        }
        true
    }
}

/// A build finds another one in its place, wherever that is: it is refused, and the other is not disturbed.
#[test]
fn a_build_during_another_is_refused() {
    let corpus = Corpus::new();
    let (run, tokenizer) = (&corpus.run(&[]).expect("sound"), &corpus.tokenizer());
    corpus.build(&[]);
    let expected = tree(&corpus.path("out"));
    for questions in [1, 2, 10, 30, 60] {
        std::fs::remove_dir_all(corpus.path("out")).expect("removable");
        let (is_there, arrives) = channel();
        let (tell, goes_on) = channel();
        let mut waiting = Waiting { lock: corpus.path("out/.units/lock"), questions, is_there, goes_on };
        std::thread::scope(move |scope| {
            let first = scope.spawn(move || prepare(run, tokenizer, &mut waiting));
            arrives.recv().expect("the first build comes as far");
            // threads of its own: those of the first build may all wait
            let threads = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("two threads");
            let second = threads.install(|| prepare(run, tokenizer, &mut NoProgress));
            assert!(matches!(second, Err(Error::Busy { .. })), "question {questions}: {second:?}");
            tell.send(()).expect("it waits");
            first.join().expect("no panic").expect("built");
        });
        assert!(tree(&corpus.path("out")) == expected, "question {questions}");
    }
}

/// Each of two builds that begin together succeeds or says that it has to wait.
#[test]
fn two_builds_at_once_leave_the_data_of_one() {
    let corpus = Corpus::new();
    let (run, tokenizer) = (corpus.run(&[]).expect("sound"), corpus.tokenizer());
    corpus.build(&[]);
    let expected = tree(&corpus.path("out"));
    for round in 0..12 {
        std::fs::remove_dir_all(corpus.path("out")).expect("removable");
        let together = Barrier::new(2);
        let build = || {
            together.wait();
            prepare(&run, &tokenizer, &mut NoProgress)
        };
        let (one, other) = std::thread::scope(|scope| {
            let one = scope.spawn(build);
            let other = build();
            (one.join().expect("no panic"), other)
        });
        assert!(one.is_ok() || other.is_ok(), "{one:?} {other:?}");
        for error in [one.err(), other.err()].into_iter().flatten() {
            assert!(matches!(error, Error::Busy { .. }), "{error}");
        }
        assert!(tree(&corpus.path("out")) == expected, "round {round}");
    }
}
