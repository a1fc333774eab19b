//! Ids of the reference: a small tokenizer in the repository, and GPT-NeoX-20B's beside it.

use std::path::Path;

use mpt_tokenize::Tokenizer;
use serde_json::Value;

use crate::shared::shared;

#[derive(serde::Deserialize)]
struct Case {
    kind: String,
    text: String,
    ids: Vec<u32>,
}

/// Written by the Python package, see `mpt-tokenize/tests/golden/make.py`.
#[test]
fn golden_ids_are_those_of_the_reference() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let tokenizer = Tokenizer::from_file(&golden.join("tokenizer.json")).expect("loadable");
    let text = std::fs::read_to_string(golden.join("cases.jsonl")).expect("readable");
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let head = lines.next().expect("a line of what made the others");
    assert_eq!(tokenizer.num_ids() as u64, head["vocab_size"]);
    let mut cases = 0;
    for case in lines {
        let text = case["text"].as_str().expect("a text");
        let ids = tokenizer.encode(text).expect("encoded");
        assert_eq!(serde_json::json!(ids), case["ids"], "{text:?}");
        let decoded = tokenizer.decode(&ids).expect("decoded");
        assert_eq!(decoded, case.get("decoded").unwrap_or(&case["text"]).as_str().expect("a text"));
        cases += 1;
    }
    assert_eq!(cases, 40);
}

#[test]
fn neox_ids_are_those_of_the_reference() {
    let Some(file) = shared("data/tokenizers/gpt-neox-20b/tokenizer.json") else { return };
    let Some(cases) = shared("fixtures/tokenizer/cases.jsonl") else { return };
    let tokenizer = Tokenizer::from_file(&file).expect("loadable");
    let text = std::fs::read_to_string(&cases).expect("readable");
    let cases: Vec<Case> = text.lines().map(|line| serde_json::from_str(line).expect("a case")).collect();
    assert!(cases.len() >= 400);
    for case in cases {
        assert_eq!(
            tokenizer.encode(&case.text).expect("encoded"),
            case.ids,
            "{}: {:?}",
            case.kind,
            case.text
        );
    }
}
