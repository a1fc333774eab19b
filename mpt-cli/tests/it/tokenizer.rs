//! `tokenizer apply-template` and `bench tokenizer`.

use crate::job::Job;

const CHAT: &str = r#"[{"role": "user", "content": "leaf?"}]"#;

#[test]
fn named_templates_are_applied_byte_for_byte() {
    let job = Job::new();
    job.write("chat.json", CHAT);
    job.write("object.json", &format!("{{\"id\": 7, \"messages\": {CHAT}}}"));
    let apply = ["tokenizer", "apply-template", "--template", "chatml", "--messages"];
    let begin = "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers.<|im_end|>\n<|im_start|>user\nleaf?<|im_end|>\n";
    assert_eq!(job.done(&[&apply[..], &["chat.json"]].concat()), begin);
    let with_prompt = [&apply[..], &["object.json", "--add-generation-prompt"]].concat();
    assert_eq!(job.done(&with_prompt), format!("{begin}<|im_start|>assistant\n"));
    let json = job.json(&with_prompt);
    assert_eq!(json["text"], format!("{begin}<|im_start|>assistant\n"));
    assert_eq!(json["stop"], serde_json::json!(["<|im_end|>", "<|endoftext|>"]));
    assert!(json["ids"].is_null() && json["stop_ids"].is_null());
}

#[test]
fn a_model_brings_its_own_template_and_its_ids() {
    let job = Job::new();
    job.write("chat.json", CHAT);
    let apply = ["tokenizer", "apply-template", "--model", ".", "--messages", "chat.json"];
    let error = job.fails(3, &apply);
    assert!(error.contains("has no chat template") && error.contains("chatml, mpt-30b-instruct"), "{error}");
    job.write(
        "tokenizer_config.json",
        r#"{"chat_template": "{{ messages[0].content }}{{ eos_token }}", "eos_token": "<|endoftext|>"}"#,
    );
    let json = job.json(&apply);
    assert_eq!((&json["text"], &json["stop_ids"]), (&"leaf?<|endoftext|>".into(), &serde_json::json!([0])));
    assert_eq!(json["ids"].as_array().and_then(|ids| ids.last()), Some(&0.into()));
    let named = job.json(&[&apply[..], &["--template", "dolly"]].concat());
    assert!(named["text"].as_str().is_some_and(|text| text.ends_with("### Instruction:\nleaf?")), "{named}");
    job.write("own.jinja", "<{{ messages[0].role }}>");
    assert_eq!(job.done(&[&apply[..], &["--template-file", "own.jinja"]].concat()), "<user>");
    job.write("own.jinja", "{{ [messages, messages] }}");
    assert!(
        job.fails(3, &[&apply[..], &["--template-file", "own.jinja"]].concat())
            .contains("own.jinja: not a usable chat template: line 1")
    );
}

#[test]
fn conversations_and_names_that_do_not_fit_are_named() {
    let job = Job::new();
    job.write("chat.json", CHAT);
    job.write("system.json", r#"[{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]"#);
    job.write("broken.json", "[{]");
    job.write("other.json", "{\"role\": \"user\"}");
    let apply = |template: &'static str, file: &'static str| {
        ["tokenizer", "apply-template", "--template", template, "--messages", file]
    };
    assert!(
        job.fails(2, &apply("chatlm", "chat.json"))
            .contains("there is no chat template `chatlm`; the built-in ones are `chatml`")
    );
    assert!(
        job.fails(3, &apply("dolly", "system.json"))
            .contains("2 messages of the roles `system`, `user`, expected one message")
    );
    assert!(job.fails(3, &apply("dolly", "broken.json")).contains("broken.json: broken JSON"));
    assert!(job.fails(3, &apply("dolly", "other.json")).contains("other.json: expected a list of messages"));
    assert!(job.fails(3, &apply("dolly", "nope.json")).contains("nope.json: cannot be read"));
    assert!(
        job.fails(3, &["tokenizer", "apply-template", "--model", "nope", "--messages", "chat.json"])
            .contains("nope")
    );
    assert_eq!(job.run(&["tokenizer", "apply-template", "--messages", "chat.json"]).code, 2);
    assert_eq!(job.run(&[&apply("dolly", "chat.json")[..], &["--template-file", "x"]].concat()).code, 2);
}

#[test]
fn the_speed_of_the_tokenizer_is_measured() {
    let job = Job::new();
    let bench = [
        "bench",
        "tokenizer",
        "--tokenizer",
        "tokenizer.json",
        "verse.jsonl",
        "--reps",
        "1",
        "--threads",
        "2",
    ];
    let json = job.json(&bench);
    for figure in ["mb_per_s", "tokens_per_s", "decode_mb_per_s", "load_seconds"] {
        assert!(json[figure].as_f64().is_some_and(|value| value > 0.0), "{figure}: {json}");
    }
    assert_eq!(json["threads"], 2);
    assert!(job.done(&bench).contains(" MB/s, "));
    job.write("empty.txt", "");
    assert!(
        job.fails(3, &["bench", "tokenizer", "--tokenizer", "tokenizer.json", "empty.txt"])
            .contains("the file is empty")
    );
}
