//! `mpt quantize`, and `--dtype` with quantized dtypes: sizes, errors, and equal numbers both ways.

use std::fs;

use serde_json::Value;

use crate::job::Job;

const CONFIG: &str = r#"{"model_type": "mpt", "d_model": 256, "n_heads": 4, "n_layers": 1, "vocab_size": 384,
    "max_seq_len": 32, "expansion_ratio": 2, "attn_config": {"alibi": true}}"#;

const TYPES: [(&str, f64, f64); 6] = [
    ("q8_0", 8.6, 0.007),
    ("q6_k", 6.7, 0.02),
    ("q5_k", 5.6, 0.04),
    ("q4_k", 4.6, 0.08),
    ("q4_0", 4.6, 0.10),
    ("nf4", 11.0, 0.10), // a fifth of this small model is the embedding, which stays f32
];

/// Job with a random model of this configuration in the folder `model`, and a tokenizer of 320 ids.
fn job(config: &str) -> Job {
    let job = Job::new();
    job.write("config.json", config);
    job.done(&["init", "model", "--config", "config.json", "--seed", "4"]);
    fs::copy(job.path("tokenizer.json"), job.path("model/tokenizer.json")).expect("copied");
    job
}

fn generated(job: &Job, model: &str, dtype: &str) -> Value {
    let args =
        ["generate", "--model", model, "--dtype", dtype, "--prompt", "river  stone", "--max-new-tokens", "8"];
    job.json(&args)["choices"].clone()
}

#[test]
fn every_type_is_written_and_is_what_loading_gives() {
    let job = job(CONFIG);
    for (form, most_bits, most_error) in TYPES {
        let out = if form == "nf4" { "nf4".to_owned() } else { format!("{form}.gguf") };
        let said = job.json(&["quantize", "model", &out, "--type", form]);
        let number = |key: &str| said[key].as_f64().unwrap_or_else(|| panic!("{key}: {said}"));
        assert_eq!((&said["type"], &said["path"]), (&form.into(), &out.as_str().into()));
        assert!(number("bits_per_weight") < most_bits, "{said}");
        assert!(number("bytes_after") < number("bytes_before"), "{said}");
        let error = said["error"]["relative_rms"].as_f64().expect("a number");
        assert!(error > 0.0 && error < most_error, "{form}: {error}");
        let kinds = said["error"]["kinds"].as_array().expect("a list");
        let kind =
            |name: &str| kinds.iter().find(|kind| kind["kind"] == name).expect("a kind")["dtype"].clone();
        assert_eq!(kind("attn.Wqkv"), form);
        assert_eq!(kind("wte"), if form == "nf4" { "f32" } else { form });
        assert_eq!(generated(&job, &out, "f32"), generated(&job, "model", form), "{form}");
        let verified = job.json(&["verify", &out, "--against", "model"]);
        assert_eq!(verified["passed"], true, "{form}: {verified}");
    }
    assert_eq!(job.json(&["info", "nf4"])["tokenizer"], job.json(&["info", "model"])["tokenizer"]);
}

#[test]
fn the_folder_says_what_transformers_must_know_and_other_formats_forget_it() {
    let job = job(CONFIG);
    job.done(&["quantize", "model", "nf4", "--type", "nf4"]);
    let config = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(job.path(name)).expect("readable")).expect("JSON")
    };
    let quantization = &config("nf4/config.json")["quantization_config"];
    assert_eq!(quantization["quant_method"], "bitsandbytes");
    assert_eq!(quantization["bnb_4bit_quant_type"], "nf4");
    job.done(&["convert", "nf4", "wide", "--to", "hf", "--dtype", "f32"]);
    assert_eq!(config("wide/config.json").get("quantization_config"), None);
    assert_eq!(generated(&job, "wide", "f32"), generated(&job, "nf4", "f32"));
    job.done(&["convert", "nf4", "nf4.gguf", "--to", "gguf", "--dtype", "q8_0"]);
    assert_eq!(job.json(&["info", "nf4.gguf"])["tensors"][0]["dtype"], "Q8_0");
}

#[test]
fn rows_that_blocks_do_not_fill_get_a_wider_form() {
    let job = job(&CONFIG.replace("256", "96").replace("384", "320"));
    let kinds = |out: &str, form: &str| {
        job.json(&["quantize", "model", out, "--type", form])["error"]["kinds"].clone()
    };
    for kind in kinds("a.gguf", "q4_k").as_array().expect("a list") {
        // rows of the down projection are twice as long, and no multiple of 256 either
        assert_eq!(kind["dtype"], "q8_0", "{kind}");
    }
    for kind in kinds("nf4", "nf4").as_array().expect("a list") {
        let fits = kind["kind"] == "ffn.down_proj"; // 192 values
        assert_eq!(kind["dtype"], if fits { "nf4" } else { "f32" }, "{kind}");
    }
    let text = fs::read_to_string(job.path("nf4/config.json")).expect("readable");
    let config: Value = serde_json::from_str(&text).expect("JSON");
    let skipped = &config["quantization_config"]["llm_int8_skip_modules"];
    assert_eq!(skipped[0], "lm_head");
    assert!(skipped.as_array().expect("a list").contains(&"transformer.blocks.0.attn.Wqkv".into()));
    assert_eq!(generated(&job, "nf4", "f32"), generated(&job, "model", "nf4"));
}

#[test]
fn values_that_are_no_numbers_are_named_and_nothing_is_left() {
    let job = job(CONFIG);
    let path = job.path("model/model.safetensors");
    let mut bytes = fs::read(&path).expect("readable");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).expect("writable");
    for (out, form) in [("a.gguf", "q4_k"), ("b.gguf", "q8_0")] {
        let message = job.fails(3, &["quantize", "model", out, "--type", form]);
        assert!(
            message.contains("transformer.wte.weight") && message.contains("value 98303 is NaN"),
            "{message}"
        );
        assert!(!job.path(out).exists());
    }
    let message = job.fails(
        3,
        &["generate", "--model", "model", "--dtype", "q4_k", "--prompt", "a", "--max-new-tokens", "1"],
    );
    assert!(message.contains("transformer.wte.weight"), "{message}");
}

#[test]
fn wrong_requests_say_what_to_do() {
    let job = job(CONFIG);
    let expect = |code, args: &[&str], named: &str| {
        let message = job.fails(code, args);
        assert!(message.contains(named), "{args:?}: {message}");
    };
    expect(2, &["quantize", "model", "model", "--type", "nf4"], "there is something already");
    expect(2, &["quantize", "model", "out", "--type", "q3_k"], "q4_k");
    expect(3, &["quantize", "nowhere", "out", "--type", "q8_0"], "nowhere");
    expect(2, &["convert", "model", "out.gguf", "--to", "gguf", "--dtype", "nf4"], "q4_k");
    expect(2, &["init", "out", "--config", "config.json", "--dtype", "nf4"], "f32, f16, bf16");
}
