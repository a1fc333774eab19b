//! GPT-NeoX-20B tokenizer on the reference cases.

use std::path::Path;

use mpt_tokenize::Tokenizer;

#[derive(serde::Deserialize)]
struct Case {
    kind: String,
    text: String,
    ids: Vec<u32>,
}

#[test]
fn neox_ids_are_those_of_the_reference() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let file = shared.join("data/tokenizers/gpt-neox-20b/tokenizer.json");
    let cases = shared.join("fixtures/tokenizer/cases.jsonl");
    if !file.exists() || !cases.exists() {
        eprintln!("skipped: no {} or no {}", file.display(), cases.display());
        return;
    }
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
