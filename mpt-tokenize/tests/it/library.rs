//! Our encoder and decoder against the `tokenizers` crate, for every text and every kind of accepted file.

use std::path::Path;
use std::sync::LazyLock;

use mpt_tokenize::{Tokenizer, TrainConfig, train};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::shared::shared;

const TEXT: &str = "The cat's 12 cats sat.\n    def f():\n\n\n\treturn 3.14  # ½ Übergröße\n  日本語のテキスト 🐈‍⬛ ﬁne Å e\u{301}\n";

/// Tokenizer in both implementations.
struct Both {
    ours: Tokenizer,
    library: tokenizers::Tokenizer,
}

fn both(change: impl FnOnce(&mut Value)) -> Both {
    let json = train([TEXT, TEXT].into_iter(), &TrainConfig { vocab_size: 420, min_frequency: 2 });
    let mut value: Value = serde_json::from_slice(&json.expect("trained")).expect("JSON");
    change(&mut value);
    let json = serde_json::to_vec(&value).expect("JSON");
    let library = tokenizers::Tokenizer::from_bytes(&json).expect("loadable");
    Both { ours: Tokenizer::from_bytes(json, Path::new("t.json")).expect("loadable"), library }
}

fn added(value: &mut Value, content: &str, normalized: bool) {
    let vocab = value["model"]["vocab"].as_object().expect("a vocabulary");
    let (known, len) = (vocab.get(content).and_then(Value::as_u64), vocab.len() as u64);
    let list = value["added_tokens"].as_array_mut().expect("a list");
    let after = list.iter().filter_map(|token| token["id"].as_u64()).max().expect("tokens").max(len - 1) + 1;
    list.push(json!({ "id": known.unwrap_or(after), "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": normalized, "special": !normalized }));
}

fn merges(value: &mut Value) -> &mut Vec<Value> {
    value["model"]["merges"].as_array_mut().expect("merges")
}

/// GPT-NeoX-20B tokenizer; `None` when the file is missing.
static NEOX: LazyLock<Option<Both>> = LazyLock::new(|| {
    shared("data/tokenizers/gpt-neox-20b/tokenizer.json").map(|file| {
        let library = tokenizers::Tokenizer::from_file(&file).expect("loadable");
        Both { ours: Tokenizer::from_file(&file).expect("loadable"), library }
    })
});

/// Kinds of accepted files.
static KINDS: LazyLock<Vec<Both>> = LazyLock::new(|| {
    let digits = |value: &mut Value| {
        let byte_level =
            json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
        let pre = json!({ "type": "Sequence", "pretokenizers": [{ "type": "Digits", "individual_digits": true }, byte_level] });
        value["pre_tokenizer"] = pre;
        value["normalizer"] = Value::Null;
    };
    let compatible = |value: &mut Value| {
        value["normalizer"] =
            json!({ "type": "Sequence", "normalizers": [{ "type": "NFKD" }, { "type": "NFC" }] });
        value["model"]["ignore_merges"] = true.into();
        value["pre_tokenizer"]["use_regex"] = false.into();
    };
    // ranks that training never gives: long tokens before their parts
    let backwards = |value: &mut Value| merges(value).reverse();
    // a token of two merges, which the `tokenizers` crate encodes
    let ambiguous = |value: &mut Value| {
        let known: Vec<String> =
            value["model"]["vocab"].as_object().expect("tokens").keys().cloned().collect();
        let split = |token: &String| {
            let (left, right) = token.split_at(token.char_indices().nth(2)?.0);
            [left, right]
                .iter()
                .all(|half| known.iter().any(|token| token == half))
                .then(|| json!([left, right]))
        };
        let others: Vec<Value> = known.iter().filter_map(split).collect();
        assert!(!others.is_empty());
        let list = merges(value);
        list.extend(others.into_iter().filter(|other| !list.contains(other)).collect::<Vec<_>>());
    };
    vec![
        both(|_| ()),
        both(|value| {
            added(value, "<|im_start|>", false);
            added(value, "cat", false);
            added(value, "Å", true);
            added(value, "e\u{301}\u{301}", true);
        }),
        both(digits),
        both(compatible),
        both(backwards),
        both(ambiguous),
    ]
});

fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[ -~]{1,8}",
        "[ \\n\\t\u{a0}\u{3000}\u{85}]{1,30}",
        "['strvemld 1½²Ⅷ๑]{1,8}",
        "[aeA\u{300}-\u{308}\u{1100}\u{1161}\u{11a8}\u{ac00}Å\u{212b}ﬁ\u{ab}]{1,8}",
        "\\PC{0,12}",
        Just("<|im_start|>".to_owned()),
        Just("<|endoftext|>".to_owned()),
        Just("cat cats e\u{301}\u{301}".to_owned()),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn ids_are_those_of_the_library(text in text()) {
        for kind in KINDS.iter() {
            let expected = kind.library.encode_fast(text.as_str(), false).expect("encoded");
            prop_assert_eq!(kind.ours.encode(&text).expect("encoded"), expected.get_ids());
        }
    }

    #[test]
    fn texts_are_those_of_the_library(ids in prop::collection::vec(0u32..424, 0..60)) {
        for kind in KINDS.iter() {
            let known: Vec<u32> = ids.iter().copied().filter(|&id| (id as usize) < kind.ours.num_ids()).collect();
            let whole = kind.ours.decode(&known).expect("decoded");
            prop_assert_eq!(&whole, &kind.library.decode(&known, false).expect("decoded"));
            let mut stream = kind.ours.stream();
            let mut streamed: String = known.iter().map(|&id| stream.push(id).expect("decoded")).collect();
            streamed.push_str(&stream.finish());
            prop_assert_eq!(streamed, whole);
        }
    }
}

proptest! {
    // `PROPTEST_CASES` asks for more
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn neox_ids_are_those_of_the_library(text in text()) {
        let Some(neox) = &*NEOX else { return Ok(()) };
        let expected = neox.library.encode_fast(text.as_str(), false).expect("encoded");
        prop_assert_eq!(neox.ours.encode(&text).expect("encoded"), expected.get_ids());
    }
}
