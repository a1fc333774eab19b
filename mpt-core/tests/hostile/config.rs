//! Configurations with impossible sizes or invalid text.

use serde_json::json;

use crate::sound;
use crate::trial::Folder;

fn with(config: &str) -> Folder {
    let tensors = sound::tensors(&sound::config());
    Folder::new().with("config.json", config).with("model.safetensors", sound::safetensors(&tensors))
}

#[test]
fn sizes_beyond_the_file_are_refused_before_anything_is_made_of_them() {
    let mut sound: serde_json::Value = serde_json::from_str(&sound::config().to_json()).unwrap();
    for (key, size) in [
        ("n_layers", 1u64 << 16),
        ("n_layers", 1 << 30),
        ("d_model", 1 << 30),
        ("vocab_size", 1 << 30),
        ("n_heads", 1 << 30),
        ("d_model", u64::MAX),
        ("n_layers", 0),
        ("n_heads", 0),
        ("vocab_size", 0),
        ("head_dim", 1 << 30),
    ] {
        let before = sound[key].clone();
        sound[key] = json!(size);
        with(&sound.to_string()).refused(&[""]);
        sound[key] = before;
    }
    sound["n_layers"] = json!(2);
    with(&sound.to_string()).refused(&["transformer.blocks.1.norm_1.weight", "missing"]);
}

#[test]
fn a_size_too_large_is_named() {
    for (config, key) in [
        (r#"{"n_layers": 65537}"#, "`n_layers` is 65537"),
        (r#"{"d_model": 1073741825, "n_heads": 1}"#, "`d_model` is 1073741825"),
        (r#"{"n_heads": 1024, "head_dim": 1048577}"#, "`head_dim` is 1048577"),
        (r#"{"expansion_ratio": 1e300}"#, "`expansion_ratio`"),
        (r#"{"d_model": -1}"#, "line 1"),
        (r#"{"d_model": 1e400}"#, "line 1"),
    ] {
        with(config).refused(&["config.json", key]);
    }
}

#[test]
fn texts_that_are_no_configuration_are_refused() {
    for text in ["", "null", "[1]", "{", "{\"d_model\": 8, \"d_model\": 8}", "\u{0}"] {
        with(text).refused(&["config.json", "line 1"]);
    }
    with(&"[".repeat(200_000)).refused(&["config.json", "line 1"]);
    with(&format!(r#"{{"x": {}}}"#, "[".repeat(200_000))).refused(&["config.json", "recursion limit"]);
    with(&" ".repeat((256 << 10) + 1)).refused(&["config.json", "at most 256 KiB"]);
}

#[test]
fn values_are_quoted_in_part() {
    let long = "\u{1b}".to_owned() + &"v".repeat(200_000);
    for config in [
        json!({ "norm_type": long }),
        json!({ "model_type": long }),
        json!({ "block_overrides": long }),
        json!({ "logit_scale": long }),
        json!({ "init_config": { "name": long } }),
        json!({ "attn_config": { "attn_impl": long } }),
    ] {
        let message = with(&config.to_string()).open().unwrap_err();
        assert!(message.len() < 1000 && !message.contains('\u{1b}'), "{message}");
    }
}

#[test]
fn unknown_keys_cost_little() {
    with(&format!(r#"{{"x": [{}0]}}"#, "0,".repeat(100_000))).refused(&["missing"]);
    with(&format!(r#"{{"x": [{}0]}}"#, "[],".repeat(80_000))).refused(&["missing"]);
}
