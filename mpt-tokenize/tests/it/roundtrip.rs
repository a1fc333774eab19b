//! Trained tokenizers: round trips, streaming, determinism.

use std::path::Path;
use std::sync::LazyLock;

use mpt_tokenize::{Error, Tokenizer, TrainConfig, train};
use proptest::prelude::*;

const TEXT: &str = "The cat sat on the mat.\n    def cat(mat):\n        return mat  # the cat\n\nÜber den Dächern: ein Kätzchen 🐈 sitzt.\n";

fn trained(vocab_size: usize) -> Vec<u8> {
    train(
        [TEXT, "a second text about the cat", TEXT].into_iter(),
        &TrainConfig { vocab_size, min_frequency: 2 },
    )
    .expect("trained")
}

static SMALL: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_bytes(trained(330), Path::new("t.json")).expect("loadable"));

#[test]
fn ids_are_laid_out_as_in_neox() {
    assert_eq!(SMALL.num_ids(), 330);
    assert_eq!((SMALL.token_to_id("<|endoftext|>"), SMALL.token_to_id("<|padding|>")), (Some(0), Some(1)));
    assert_eq!(SMALL.eos_id(), Some(0));
    for spaces in 2..=24u32 {
        assert_eq!(SMALL.token_to_id(&" ".repeat(spaces as usize)), Some(331 - spaces));
    }
    assert_eq!(SMALL.encode("a<|endoftext|>a").expect("encoded")[1], 0);
}

#[test]
fn training_gives_the_same_bytes_every_time() {
    let first = trained(400);
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        assert!(pool.install(|| trained(400)) == first, "{threads} threads");
    }
}

#[test]
fn impossible_requests_are_named() {
    let config = |vocab_size| TrainConfig { vocab_size, min_frequency: 2 };
    let error = train([TEXT].into_iter(), &config(100)).expect_err("too small").to_string();
    assert!(error.contains("`vocab_size` is 100, expected from 282"), "{error}");
    let error =
        Tokenizer::from_bytes(b"{}".to_vec(), Path::new("x/tokenizer.json")).expect_err("empty").to_string();
    assert!(error.starts_with("x/tokenizer.json: not a usable tokenizer.json: "), "{error}");
    let error = SMALL.decode(&[5, 9999]).expect_err("unknown");
    assert!(matches!(error, Error::UnknownId { id: 9999, num_ids: 330 }), "{error}");
    assert!(
        Tokenizer::from_file(Path::new("no/such.json"))
            .expect_err("absent")
            .to_string()
            .starts_with("no/such.json: reading")
    );
}

#[test]
fn long_runs_of_anything_are_encoded() {
    for unit in [" ", "\n", "a", "é", "🐈", "\u{0}", "1 "] {
        let text = unit.repeat(200_000);
        let ids = SMALL.encode(&text).expect("encoded");
        assert_eq!(SMALL.decode(&ids).expect("decoded"), text, "{unit:?}");
    }
}

#[test]
fn a_long_stream_costs_what_its_text_costs() {
    let began = std::time::Instant::now();
    let mut stream = SMALL.stream();
    let ids = SMALL.encode(&TEXT.repeat(2000)).expect("encoded");
    let bytes: usize = ids.iter().map(|&id| stream.push(id).expect("decoded").len()).sum();
    assert_eq!(bytes, TEXT.len() * 2000);
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_run_of_broken_bytes_is_let_go() {
    let lone = SMALL.encode("é").expect("encoded")[0];
    let mut stream = SMALL.stream();
    let longest = (0..10_000).map(|_| stream.push(lone).expect("decoded").len()).max();
    assert!(longest.is_some_and(|bytes| bytes > 0 && bytes < 1000));
}

/// Text in NFC, which the tokenizer preserves.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            "[ -~]{1,8}",
            Just("  ".to_owned()),
            Just("Über 🐈 日本".to_owned()),
            "[\\n\\t ]{1,5}",
            "[а-яа-я]{1,3}"
        ],
        0..30,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn text_comes_back(text in text()) {
        let ids = SMALL.encode(&text).expect("encoded");
        prop_assert_eq!(SMALL.decode(&ids).expect("decoded"), text);
    }

    #[test]
    fn streams_give_what_decoding_at_once_gives(text in text(), noise in prop::collection::vec(0u32..330, 0..10)) {
        let mut ids = noise;
        ids.extend(SMALL.encode(&text).expect("encoded"));
        let mut stream = SMALL.stream();
        let mut streamed: String = ids.iter().map(|&id| stream.push(id).expect("decoded")).collect();
        streamed.push_str(&stream.finish());
        prop_assert_eq!(streamed, SMALL.decode(&ids).expect("decoded"));
    }

    /// For any iterator and any number of threads.
    #[test]
    fn training_depends_on_the_texts_alone(texts in prop::collection::vec(text(), 1..30), vocab_size in 290usize..400, threads in 1usize..6) {
        let config = TrainConfig { vocab_size, min_frequency: 2 };
        let first = train(texts.iter(), &config).expect("trained");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        let (left, right) = texts.split_at(texts.len() / 2);
        let again = pool.install(|| train(left.iter().cloned().chain(right.to_vec()), &config)).expect("trained");
        prop_assert!(first == again);
    }

    /// Padding ids of a model's vocabulary have no text, alone or among others.
    #[test]
    fn ids_without_a_token_are_refused(before in prop::collection::vec(0u32..330, 0..5), id in 330u32..) {
        let ids = [&before[..], &[id]].concat();
        let refused = |error: &Error| matches!(error, Error::UnknownId { id: found, num_ids: 330 } if *found == id);
        prop_assert!(SMALL.decode(&ids).is_err_and(|error| refused(&error)));
        let mut stream = SMALL.stream();
        prop_assert!(before.iter().all(|&id| stream.push(id).is_ok()));
        prop_assert!(stream.push(id).is_err_and(|error| refused(&error)));
    }

    #[test]
    fn batches_are_single_texts(texts in prop::collection::vec(text(), 0..20)) {
        let single: Vec<_> = texts.iter().map(|text| SMALL.encode(text).expect("encoded")).collect();
        prop_assert_eq!(SMALL.encode_batch(&texts).expect("encoded"), single);
    }
}
