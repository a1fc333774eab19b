//! Hostile `tokenizer.json` files: any bytes load, or are refused with the field, in bounded time.

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use mpt_tokenize::{Error, Tokenizer, TrainConfig, train};
use proptest::prelude::*;
use serde_json::{Value, json};

static SMALL: LazyLock<Value> = LazyLock::new(|| {
    let texts = ["the cat sat on the mat, the cat", "the mat and the cat sat"];
    let json = train(texts.into_iter(), &TrainConfig { vocab_size: 290, min_frequency: 2 }).expect("trained");
    serde_json::from_slice(&json).expect("JSON")
});

fn load(bytes: Vec<u8>) -> Result<Tokenizer, Error> {
    Tokenizer::from_bytes(bytes, Path::new("t.json"))
}

fn load_value(value: &Value) -> Result<Tokenizer, Error> {
    load(serde_json::to_vec(value).expect("JSON"))
}

/// Encodes and decodes with a loaded tokenizer.
fn use_it(tokenizer: &Tokenizer) {
    let text = "the cat's é  \n<|endoftext|> 12 \u{301}";
    let ids = tokenizer.encode(text).expect("encoded");
    tokenizer.decode(&ids).expect("decoded");
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.num_ids()));
    let end = tokenizer.num_ids() as u32;
    assert!(matches!(tokenizer.decode(&[end]), Err(Error::UnknownId { .. })));
}

fn refused(change: impl FnOnce(&mut Value), expected: &str) {
    let mut value = SMALL.clone();
    change(&mut value);
    let began = Instant::now();
    let error = load_value(&value).expect_err(expected).to_string();
    assert!(error.starts_with("t.json: not a usable tokenizer.json: `"), "{error}");
    assert!(error.contains(expected), "{error}\nlacks {expected}");
    assert!(error.len() < 600, "{} bytes", error.len());
    assert!(began.elapsed() < Duration::from_secs(20), "{expected}");
}

#[test]
fn attacks_are_refused_by_field() {
    let nested = (0..100)
        .fold(json!({ "type": "NFC" }), |inner, _| json!({ "type": "Sequence", "normalizers": [inner] }));
    refused(|v| v["normalizer"] = nested.clone(), "`normalizer.normalizers[0].type` is `Sequence`");
    let many = vec![json!({ "type": "NFKD" }); 100_000];
    refused(
        |v| v["normalizer"] = json!({ "type": "Sequence", "normalizers": many }),
        "`normalizer.normalizers`: invalid length 9",
    );
    let bomb = json!({ "type": "Replace", "pattern": { "Regex": "(a*)*b" }, "content": "xxxxxxxx" });
    refused(|v| v["normalizer"] = bomb, "`normalizer.type` is `Replace`");
    let split = json!({ "type": "Split", "pattern": { "Regex": "(a|a)*$" }, "behavior": "Isolated", "invert": false });
    let sequence = json!({ "type": "Sequence", "pretokenizers": [split, { "type": "ByteLevel" }] });
    refused(|v| v["pre_tokenizer"] = sequence, "`pre_tokenizer.pretokenizers[0].type` is `Split`");
    refused(|v| v["pre_tokenizer"] = Value::Null, "`pre_tokenizer` is null");
    refused(
        |v| v["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [] }),
        "`pre_tokenizer` is an empty",
    );
    refused(
        |v| v["decoder"] = json!({ "type": "WordPiece", "prefix": "", "cleanup": true }),
        "`decoder.type` is `WordPiece`",
    );
    refused(
        |v| v["post_processor"] = json!({ "type": "TemplateProcessing" }),
        "`post_processor.type` is `TemplateProcessing`",
    );
    refused(|v| v["version"] = "9.9".into(), "`version` is `9.9`");
    refused(|v| v["version"] = 1.into(), "`version`: invalid type: integer");
}

#[test]
fn hostile_models_are_refused_by_field() {
    let model = |field: &'static str, value: Value| move |v: &mut Value| v["model"][field] = value;
    refused(model("type", "Unigram".into()), "`model.type` is `Unigram`");
    refused(model("dropout", 0.5.into()), "`model.dropout` is 0.5");
    refused(model("continuing_subword_prefix", "####".into()), "`model.continuing_subword_prefix` is `####`");
    refused(model("end_of_word_suffix", "</w>".into()), "`model.end_of_word_suffix` is `</w>`");
    refused(model("unk_token", "nowhere".into()), "`model.unk_token` is `nowhere`");
    refused(model("merges", json!(["a b c"])), "`model.merges[0]`");
    refused(model("merges", json!([["a"]])), "`model.merges[0]`: a merge of other than two");
    refused(model("merges", json!([["a", "nowhere"]])), "which lacks `nowhere`");
    refused(model("merges", json!([["t", "q"]])), "which lacks `tq`");
    refused(model("merges", json!([[7, "a"]])), "`model.merges[0][0]`");
    refused(model("vocab", json!({})), "`model.vocab` is without a token");
    refused(model("vocab", json!([])), "`model.vocab`: invalid type: sequence");
    let token = |token: String, id: Value| move |v: &mut Value| v["model"]["vocab"][token] = id;
    refused(token("zzz".into(), u32::MAX.into()), "ids without large gaps");
    refused(token("zzz".into(), (-1).into()), "`model.vocab.zzz`: invalid value");
    refused(token("zzz".into(), 4_294_967_296u64.into()), "`model.vocab.zzz`: invalid value");
    refused(token("zzz".into(), 5.into()), "two tokens of id 5");
    refused(token(String::new(), 267.into()), "a token of 0 bytes");
    refused(token("x".repeat(1 << 20), 267.into()), "a token of 1048576 bytes");
    refused(
        |v| {
            let vocab = v["model"]["vocab"].as_object_mut().expect("a map");
            vocab.remove("Ġ");
        },
        "without a token `Ġ` for the byte 0x20",
    );
}

#[test]
fn hostile_added_tokens_are_refused_by_field() {
    let first = |field: &'static str, value: Value| move |v: &mut Value| v["added_tokens"][0][field] = value;
    refused(first("content", "".into()), "`added_tokens[0].content` is 0 bytes");
    refused(first("content", "x".repeat(1 << 20).into()), "`added_tokens[0].content` is 1048576 bytes");
    refused(first("lstrip", true.into()), "`added_tokens[0].lstrip` is true");
    refused(first("rstrip", true.into()), "`added_tokens[0].rstrip` is true");
    refused(first("single_word", true.into()), "`added_tokens[0].single_word` is true");
    refused(first("id", 4_000_000_000u32.into()), "`added_tokens[0].id` is 4000000000, expected 0");
    refused(first("content", "<|padding|>".into()), "`added_tokens[0].id` is 0, expected 1");
    refused(first("normalized", Value::Null), "`added_tokens[0].normalized`");
    refused(
        |v| v["added_tokens"][3]["content"] = v["added_tokens"][2]["content"].clone(),
        "`added_tokens[3].content`",
    );
    let many = |v: &mut Value| {
        let token = v["added_tokens"][0].clone();
        v["added_tokens"] = vec![token; 20_000].into();
    };
    refused(many, "`added_tokens`: invalid length 16385");
    let same = |v: &mut Value| {
        for (index, content) in [(2, "\u{1ec7}"), (3, "e\u{323}\u{302}")] {
            v["added_tokens"][index]["content"] = content.into();
        }
    };
    refused(same, "which another token is once normalized");
}

#[test]
fn hostile_bytes_are_refused_at_once() {
    let text = SMALL.to_string();
    let twice =
        |from: &str, to: &str| load(text.replacen(from, to, 1).into_bytes()).expect_err("twice").to_string();
    assert!(twice("\"model\":{", "\"model\":{},\"model\":{").contains("`model`"));
    assert!(twice("\"vocab\":{", "\"vocab\":{\"a\":1,\"a\":1,").contains("the token `a` occurs twice"));
    assert!(
        load((text.clone() + "x").into_bytes())
            .expect_err("trailing")
            .to_string()
            .contains("`the end of the file`")
    );
    for bytes in [
        Vec::new(),
        b"\xff\xfe".to_vec(),
        "[".repeat(10_000_000).into_bytes(),
        "{\"a\":".repeat(3_000_000).into_bytes(),
        format!("{{\"normalizer\":{}", "[".repeat(1_000_000)).into_bytes(),
        format!("{{\"model\":{{\"vocab\":{{{}", "\"a\":1,".repeat(5_000_000)).into_bytes(),
        format!("{{\"model\":{{\"merges\":[{}", "[\"a\",\"b\"],".repeat(3_000_000)).into_bytes(),
        format!("{{\"truncation\":[{}", "{},".repeat(10_000_000)).into_bytes(),
        vec![b' '; (64 << 20) + 1],
    ] {
        let began = Instant::now();
        let error = load(bytes).expect_err("no tokenizer");
        assert!(matches!(error, Error::BrokenTokenizer { .. } | Error::TokenizerField { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20), "{error}");
    }
}

#[test]
fn many_and_long_added_tokens_are_found_in_bounded_time() {
    let mut value = SMALL.clone();
    let vocab = value["model"]["vocab"].as_object().expect("a map").len();
    let token = |index: usize| json!({ "id": vocab + index, "content": format!("{}{index}", "a".repeat(12)), "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
    value["added_tokens"] = (0..16_000).map(token).collect();
    let began = Instant::now();
    let tokenizer = load_value(&value).expect("loadable");
    let ids = tokenizer.encode(&"a".repeat(1_000_000)).expect("encoded");
    assert!(!ids.is_empty() && began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn very_long_texts_are_encoded_on_a_small_stack() {
    let tokenizer = load_value(&SMALL).expect("loadable");
    let work = || {
        for unit in ["\n", "a", "é\u{301}", " \t", "1", "<|endoftext|>", "the cat "] {
            let text = unit.repeat(4_000_000 / unit.len());
            let began = Instant::now();
            let ids = tokenizer.encode(&text).expect("encoded");
            assert!(
                !ids.is_empty() && began.elapsed() < Duration::from_secs(60),
                "{unit:?}: {:?}",
                began.elapsed()
            );
        }
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, work);
        thread.expect("a thread").join().expect("no panic");
    });
}

/// Replaces, drops or doubles the value at the end of a random walk from the root.
fn mutate(value: &mut Value, walk: &[u16], with: &Value) {
    let Some((&step, rest)) = walk.split_first() else {
        *value = with.clone();
        return;
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            let key = map.keys().nth(usize::from(step) % map.len()).expect("in range").clone();
            match step % 16 {
                0 => drop(map.remove(&key)),
                1 => drop(map.insert(format!("{key}x"), with.clone())),
                _ => mutate(&mut map[&key], rest, with),
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let index = usize::from(step) % list.len();
            match step % 16 {
                0 => drop(list.remove(index)),
                1 => list.push(list[index].clone()),
                _ => mutate(&mut list[index], rest, with),
            }
        }
        _ => *value = with.clone(),
    }
}

fn replacement() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(0u64), Just(300), Just(u64::from(u32::MAX)), any::<u64>()].prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![
            "\\PC{0,6}".prop_map(Value::from),
            Just(json!("ByteLevel")),
            Just(json!("Ġt")),
            Just(json!("a b"))
        ],
        Just(json!([])),
        Just(json!({})),
        Just(json!(["t", "he"])),
        Just(json!({ "type": "Sequence", "normalizers": [], "pretokenizers": [], "decoders": [] })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn changed_values_load_or_are_refused(changes in prop::collection::vec((prop::collection::vec(any::<u16>(), 1..5), replacement()), 1..4)) {
        let mut value = SMALL.clone();
        for (walk, with) in &changes {
            mutate(&mut value, walk, with);
        }
        if let Ok(tokenizer) = load_value(&value) {
            use_it(&tokenizer);
        }
    }

    #[test]
    fn changed_bytes_load_or_are_refused(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), end in prop::option::of(any::<prop::sample::Index>())) {
        let mut bytes = SMALL.to_string().into_bytes();
        for (at, byte) in &flips {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        if let Ok(tokenizer) = load(bytes) {
            use_it(&tokenizer);
        }
    }
}
