//! Conversions of models by the binary: `init`, `convert`, `merge`, `info`.

use std::fs;

use serde_json::Value;

use crate::job::Job;

const CONFIG: &str = r#"{"model_type": "mpt", "d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 384,
    "max_seq_len": 32, "eos_token_id": 0, "my_own_key": [1, 2], "auto_map": {"AutoModel": "code.py"},
    "no_bias": true, "attn_config": {"alibi": true, "clip_qkv": 6, "alibi_bias_max": 16}}"#;

/// Job with a random model of 384 ids in the folder `model`, and a tokenizer of 320.
fn job() -> Job {
    let job = Job::new();
    job.write("config.json", CONFIG);
    job.done(&["init", "model", "--config", "config.json", "--seed", "4"]);
    fs::copy(job.path("tokenizer.json"), job.path("model/tokenizer.json")).expect("copied");
    fs::write(job.path("model/config.json"), CONFIG).expect("writable");
    job
}

fn generated(job: &Job, model: &str) -> Value {
    let prompt = ["--prompt", "river  stone", "--max-new-tokens", "12"];
    let args = [&["generate", "--model", model][..], &prompt].concat();
    job.json(&args)["choices"].clone()
}

#[test]
fn a_model_goes_to_gguf_and_back_with_its_tokenizer() {
    let job = job();
    let converted = job.json(&["convert", "model", "model.gguf", "--to", "gguf", "--verify"]);
    assert_eq!(converted["verified"]["passed"], true, "{converted}");
    assert_eq!(converted["dtype"], "f32");
    let expected = generated(&job, "model");
    assert!(expected[0]["text"].is_string());
    assert_eq!(generated(&job, "model.gguf"), expected);
    job.json(&["convert", "model.gguf", "back", "--to", "hf", "--verify"]);
    assert_eq!(generated(&job, "back"), expected);
    let config: Value =
        serde_json::from_slice(&fs::read(job.path("back/config.json")).expect("readable")).expect("JSON");
    assert_eq!((&config["eos_token_id"], &config["attn_config"]["clip_qkv"]), (&0.into(), &6.0.into()));
    let info = job.json(&["info", "model.gguf"]);
    assert_eq!(info["tokenizer"], job.json(&["info", "model"])["tokenizer"]);
    assert_eq!(info["metadata"]["tokenizer.ggml.pre"], "mpt");
    assert_eq!(info["config"]["attn_config"]["alibi_bias_max"], 16);
}

#[test]
fn a_folder_is_written_in_shards_and_keeps_what_belongs_to_others() {
    let job = job();
    let converted =
        job.json(&["convert", "model", "half", "--to", "hf", "--dtype", "bf16", "--max-shard-size", "30KB"]);
    assert!(converted["files"].as_array().expect("a list").len() > 2, "{converted}");
    let config: Value =
        serde_json::from_slice(&fs::read(job.path("half/config.json")).expect("readable")).expect("JSON");
    assert_eq!(config["my_own_key"], serde_json::json!([1, 2]));
    assert_eq!((&config["torch_dtype"], config.get("auto_map")), (&"bfloat16".into(), None));
    let verified = job.json(&["verify", "half", "--against", "model"]);
    assert_eq!(verified["passed"], true);
    assert!(job.path("half/tokenizer.json").is_file());
    let left = fs::read_dir(job.path("")).expect("a folder").flatten();
    assert!(!left.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().ends_with(".partial")));
}

#[test]
fn the_same_seed_draws_the_same_model() {
    let job = job();
    let draw = |name: &str, seed: &str| {
        job.done(&["init", name, "--config", "config.json", "--seed", seed]);
        fs::read(job.path(name).join("model.safetensors")).expect("readable")
    };
    assert_eq!(draw("a", "4"), fs::read(job.path("model/model.safetensors")).expect("readable"));
    assert_ne!(draw("b", "5"), fs::read(job.path("model/model.safetensors")).expect("readable"));
}

#[test]
fn nothing_is_overwritten_and_errors_name_what_to_do() {
    let job = job();
    let expect = |code, args: &[&str], named: &str| {
        let message = job.fails(code, args);
        assert!(message.contains(named), "{args:?}: {message}");
    };
    expect(2, &["convert", "model", "model", "--to", "hf"], "there is something already");
    expect(3, &["convert", "nowhere", "out", "--to", "hf"], "nowhere");
    expect(
        2,
        &["convert", "model", "out", "--to", "hf", "--dtype", "q8_0"],
        "a folder holds f32, f16, bf16 or nf4",
    );
    expect(2, &["convert", "model", "out", "--to", "hf", "--max-shard-size", "5XB"], "--max-shard-size");
    expect(3, &["merge", "--model", "model", "--adapter", "nowhere", "--out", "out"], "adapter_config.json");
    expect(2, &["init", "out", "--preset", "mpt-2b"], "mpt-7b");
    assert!(!job.path("out").exists());
    fs::write(job.path("bad.gguf"), b"GGUF\x03\0\0\0").expect("writable");
    expect(3, &["convert", "bad.gguf", "out", "--to", "hf"], "bad.gguf");
}
