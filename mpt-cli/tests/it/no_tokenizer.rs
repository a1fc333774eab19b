//! Models without a usable tokenizer: commands that need none work, others name the missing file or key.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use mpt_core::weights::GgufWriter;
use mpt_core::{ConvertOptions, Weights, write_gguf};
use mpt_tokenize::Tokenizer;
use serde_json::Value;

use crate::job::Job;

const CONFIG: &str = r#"{"model_type": "mpt", "d_model": 32, "n_heads": 4, "n_layers": 1, "vocab_size": 320,
    "max_seq_len": 32, "eos_token_id": 5, "attn_config": {"alibi": true}}"#;

/// Job with a folder `model` without a tokenizer, and input files for the commands.
fn job() -> Job {
    let job = Job::new();
    job.write("config.json", CONFIG);
    job.done(&["init", "model", "--config", "config.json", "--seed", "4"]);
    fs::write(job.path("model/config.json"), CONFIG).expect("writable");
    job.write("ids.json", "[[1, 2, 3, 4]]");
    job.write("chat.json", r#"[{"role": "user", "content": "leaf"}]"#);
    job.write("text.txt", "river stone cloud");
    job
}

/// Writes the model as a GGUF file with these keys.
fn gguf(job: &Job, name: &str, mut describe: impl FnMut(&mut GgufWriter)) {
    let weights = Weights::open(&job.path("model")).expect("sound");
    let options = ConvertOptions::default();
    let go_on = &mut |_| ControlFlow::Continue(());
    write_gguf(&weights, &job.path(name), "test", &options, &mut describe, go_on).expect("writable");
}

/// Writes the job's vocabulary under tokenizer type `kind`, without merges.
fn tokens_without_merges(job: &Job, header: &mut GgufWriter, kind: &str) {
    let tokenizer = Tokenizer::from_file(&job.path("tokenizer.json")).expect("sound");
    let parts = tokenizer.to_gguf(320).expect("as many ids");
    header.text("tokenizer.ggml.model", kind);
    header.texts("tokenizer.ggml.tokens", &parts.tokens);
    header.ints("tokenizer.ggml.token_type", &parts.token_types);
    header.int("tokenizer.ggml.eos_token_id", 5);
}

/// Commands without text give the same results as for the model with a tokenizer.
fn what_needs_none_works(job: &Job, model: &str, named: &str) {
    let info = job.json(&["info", model]);
    assert!(info["tokenizer"].is_null() && info["parameters"].as_u64() > Some(0), "{info}");
    assert!(info["tokenizer_problem"].as_str().is_some_and(|problem| problem.contains(named)), "{info}");
    let shown = job.done(&["info", model]);
    assert!(shown.contains("no tokenizer: ") && shown.contains(named), "{shown}");

    for command in ["score", "grad"] {
        let files = ["--model", model, "--ids-file", "ids.json", "--out", "out.safetensors"];
        job.done(&[&[command], &files[..]].concat());
        fs::remove_file(job.path("out.safetensors")).expect("written");
    }
    let generate = ["generate", "--model", model, "--prompt-ids", "1,2", "--max-new-tokens", "6"];
    let generated = job.json(&generate);
    assert!(generated["choices"][0]["text"].is_null(), "{generated}");
    assert!(!job.done(&generate).trim().is_empty());
    assert_eq!(job.json(&["verify", model])["passed"], true);
}

/// Commands with text end with exit code 3, name `named` with a remedy, and do not mention `unnamed`.
fn what_needs_one_says_so(job: &Job, model: &str, named: &str, unnamed: &str) {
    let commands: [&[&str]; 4] = [
        &["generate", "--model", model, "--prompt", "river"],
        &["generate", "--model", model, "--prompt-file", "text.txt"],
        &["eval", "--model", model, "--text", "text.txt"],
        &["verify", model, "--text", "text.txt"],
    ];
    for command in commands {
        let message = job.fails(3, command);
        assert!(message.contains(named) && message.contains(model), "{command:?}: {message}");
        assert!(
            message.contains("help: ") && message.contains("or give token ids"),
            "{command:?}: {message}"
        );
        assert!(!message.contains(unnamed), "{command:?}: {message}");
    }
}

/// Converts a model. Returns the warnings.
fn converted(job: &Job, model: &str, out: &str, to: &str) -> String {
    let run = job.run(&["convert", model, out, "--to", to, "--verify"]);
    assert_eq!(run.code, 0, "{model} to {to}: {}", run.stderr);
    assert!(run.stdout.contains("the same logits"), "{}", run.stdout);
    run.stderr
}

fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

#[test]
fn gguf_files_name_the_key() {
    let job = job();
    gguf(&job, "llama.gguf", |header| tokens_without_merges(&job, header, "llama"));
    gguf(&job, "merges.gguf", |header| tokens_without_merges(&job, header, "gpt2"));
    gguf(&job, "bare.gguf", |_| {});
    for (model, named) in [
        ("llama.gguf", "`tokenizer.ggml.model` is `llama`, expected `gpt2`"),
        ("merges.gguf", "`tokenizer.ggml.merges` is missing"),
        ("bare.gguf", "`tokenizer.ggml.model` is missing"),
    ] {
        what_needs_none_works(&job, model, named);
        what_needs_one_says_so(&job, model, named, "tokenizer.json");
        let warning = converted(&job, model, "back", "hf");
        assert!(warning.contains(named) && warning.contains("without a tokenizer.json"), "{warning}");
        assert!(job.path("back/config.json").is_file() && !job.path("back/tokenizer.json").exists());
        let warning = converted(&job, model, "again.gguf", "gguf");
        assert!(warning.contains(named) && warning.contains("without a tokenizer"), "{warning}");
        assert_eq!(eos(&job.json(&["info", "again.gguf"])), eos(&job.json(&["info", model])), "{model}");
        ["back", "again.gguf"].iter().for_each(|out| remove(&job.path(out)));
    }
}

fn eos(info: &Value) -> &Value {
    &info["metadata"]["tokenizer.ggml.eos_token_id"]
}

#[test]
fn folders_name_their_tokenizer_file() {
    let job = job();
    let missing = "there is no tokenizer.json";
    for (content, named) in [(None, missing), (Some("{\"model\": "), "tokenizer.json: not a usable")] {
        if let Some(content) = content {
            fs::write(job.path("model/tokenizer.json"), content).expect("writable");
        }
        what_needs_none_works(&job, "model", named);
        what_needs_one_says_so(&job, "model", named, "tokenizer.ggml");
        let warning = converted(&job, "model", "model.gguf", "gguf");
        assert!(warning.contains(named) && warning.contains("llama.cpp will not load it"), "{warning}");
        let info = job.json(&["info", "model.gguf"]);
        assert_eq!((eos(&info), &info["tokenizer"]), (&5.into(), &Value::Null));
        assert_eq!(generated(&job, "model.gguf"), generated(&job, "model"));
        converted(&job, "model", "copy", "hf");
        assert_eq!(job.path("copy/tokenizer.json").exists(), content.is_some());
        ["model.gguf", "copy"].iter().for_each(|out| remove(&job.path(out)));
    }
}

fn generated(job: &Job, model: &str) -> Value {
    job.json(&["generate", "--model", model, "--prompt-ids", "3,1", "--max-new-tokens", "20"])["choices"]
        .clone()
}

#[test]
fn a_tokenizer_with_more_ids_than_the_model_stays_out_of_gguf() {
    let job = job();
    let config = CONFIG.replace("\"vocab_size\": 320", "\"vocab_size\": 300");
    job.write("small.json", &config);
    job.done(&["init", "small", "--config", "small.json"]);
    fs::copy(job.path("tokenizer.json"), job.path("small/tokenizer.json")).expect("copied");
    let warning = converted(&job, "small", "small.gguf", "gguf");
    assert!(warning.contains("ids do not fit a vocabulary of 300"), "{warning}");
    assert!(job.json(&["info", "small.gguf"])["tokenizer"].is_null());
}

#[test]
fn templates_need_no_tokenizer_but_for_ids() {
    let job = job();
    let apply =
        |model: &'static str| ["tokenizer", "apply-template", "--model", model, "--messages", "chat.json"];
    gguf(&job, "llama.gguf", |header| {
        tokens_without_merges(&job, header, "llama");
        header.text("tokenizer.chat_template", "<{{ messages[0].content }}>");
    });
    assert_eq!(job.done(&apply("llama.gguf")), "<leaf>");
    let json = job.json(&apply("llama.gguf"));
    assert_eq!((&json["text"], &json["ids"]), (&"<leaf>".into(), &Value::Null));
    gguf(&job, "bare.gguf", |_| {});
    let message = job.fails(3, &apply("bare.gguf"));
    assert!(message.contains("bare.gguf: the model has no chat template"), "{message}");
    assert!(
        message.contains("`tokenizer.chat_template` is missing") && message.contains("chatml"),
        "{message}"
    );
    fs::write(job.path("model/chat_template.jinja"), "[{{ messages[0].content }}]").expect("writable");
    fs::write(job.path("model/tokenizer.json"), "{").expect("writable");
    let json = job.json(&apply("model"));
    assert_eq!((&json["text"], &json["ids"]), (&"[leaf]".into(), &Value::Null));
    let warning = job.run(&apply("model")).stderr;
    assert!(warning.contains("no ids: ") && warning.contains("tokenizer.json"), "{warning}");
}
