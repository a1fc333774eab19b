//! Adapter folders that do not fit the model, or with unsupported options.

use serde_json::{Value, json};

use crate::sound::{self, Tensor};
use crate::trial::{Folder, assert_names};

const CONFIG: &str = "adapter_config.json";

fn folder(change: impl FnOnce(&mut Value, &mut Vec<Tensor>)) -> Folder {
    let (mut config, mut tensors) = (sound::adapter_config(), sound::adapter_tensors());
    change(&mut config, &mut tensors);
    Folder::new()
        .with(CONFIG, config.to_string())
        .with("adapter_model.safetensors", sound::safetensors(&tensors))
}

fn refused(change: impl FnOnce(&mut Value, &mut Vec<Tensor>), parts: &[&str]) {
    assert_names(folder(change).open_adapter(), parts);
}

#[test]
fn the_sound_adapter_is_read_in_both_formats() {
    folder(|_, _| ()).open_adapter().expect("a sound adapter");
    let bin = sound::bin(&sound::adapter_tensors());
    let folder =
        Folder::new().with(CONFIG, sound::adapter_config().to_string()).with("adapter_model.bin", bin);
    folder.open_adapter().expect("a sound adapter");
}

#[test]
fn tensors_must_fit_the_model() {
    refused(|_, tensors| tensors[0].1 = vec![1, 16], &["lora_A.weight", "[1, 16]"]);
    refused(|_, tensors| tensors[1].1 = vec![2, 24], &["lora_B.weight", "[2, 24]"]);
    refused(|_, tensors| tensors[0].1 = vec![16], &["lora_A.weight", "[16]"]);
    refused(|_, tensors| tensors[0].0 = "../x".to_owned(), &["lora_A.weight", "missing"]);
    refused(|_, tensors| drop(tensors.pop()), &["lora_B.weight", "missing"]);
    refused(|_, tensors| drop(tensors.remove(0)), &["lora_A.weight", "missing"]);
    refused(
        |_, tensors| {
            for tensor in tensors {
                tensor.1 = if tensor.1[1] == 8 { vec![0, 8] } else { vec![24, 0] };
                tensor.2.clear();
            }
        },
        &["lora_A.weight", "[0, 8]"],
    );
}

#[test]
fn configurations_are_refused_by_key() {
    refused(|config, _| config["r"] = json!(0), &[CONFIG, "`r` is 0"]);
    refused(|config, _| config["r"] = json!(-1), &[CONFIG, "line 1"]);
    refused(|config, _| config["peft_type"] = json!("x".repeat(100_000)), &[CONFIG, "`peft_type`"]);
    refused(|config, _| config["alpha_pattern"] = json!({ "(a+)+$": 1.0 }), &[CONFIG, "(a+)+$"]);
    refused(|config, _| config["modules_to_save"] = json!(["lm_head"]), &[CONFIG, "`modules_to_save`"]);
    let empty = Folder::new().with(CONFIG, "");
    assert_names(empty.open_adapter(), &[CONFIG, "line 1"]);
    assert_names(Folder::new().open_adapter(), &[CONFIG]);
    let alone = Folder::new().with(CONFIG, sound::adapter_config().to_string());
    assert_names(alone.open_adapter(), &["no weights here"]);
}

#[test]
fn ranks_are_those_of_the_configuration() {
    refused(|config, _| config["r"] = json!(u64::MAX), &["lora_A.weight", "of rank"]);
    let r = sound::adapter_config()["r"].clone();
    let by_pattern = |pattern: Value| {
        folder(move |config, _| {
            config["r"] = json!(77);
            config["rank_pattern"] = pattern;
        })
    };
    let layer = json!({ "transformer.blocks.0.attn.Wqkv": r });
    by_pattern(layer).open_adapter().expect("the rank of the pattern");
    refused(|config, _| config["rank_pattern"] = json!({ "Wqkv": 3 }), &["lora_A.weight", "says 3"]);
    refused(|config, _| config["rank_pattern"] = json!({ "W.*": 3 }), &[CONFIG, "`rank_pattern`"]);
}

#[test]
fn an_adapter_that_is_not_whole_is_refused() {
    refused(
        |config, tensors| {
            config["target_modules"] = json!("x|y");
            tensors.clear();
        },
        &["adapter_model.safetensors", "no tensor of an adapter"],
    );
    refused(|_, tensors| tensors.clear(), &["Wqkv.lora_A.weight", "missing"]);
    refused(
        |config, _| config["target_modules"] = json!(["Wqkv", "out_proj"]),
        &["out_proj.lora_A", "missing"],
    );
    refused(|config, _| config["target_modules"] = json!("all-linear"), &["lora_A", "missing"]);
    let restricted = |key: &'static str, value: Value| {
        folder(move |config, _| {
            config["target_modules"] = json!(["Wqkv", "out_proj"]);
            config[key] = value;
        })
    };
    restricted("exclude_modules", json!(["out_proj"])).open_adapter().expect("nothing is missing");
}

#[test]
fn values_that_are_no_numbers_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        refused(
            |_, tensors| {
                let end = tensors[1].2.len();
                tensors[1].2[end - 4..].copy_from_slice(&bad.to_le_bytes());
            },
            &["adapter_model.safetensors", "is not finite"],
        );
    }
}

#[test]
fn options_that_change_the_result_are_refused_by_key() {
    for way in ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "of tomorrow"] {
        refused(|config, _| config["init_lora_weights"] = json!(way), &[CONFIG, "`init_lora_weights`", way]);
    }
    for way in [json!(true), json!(false), Value::Null, json!("gaussian"), json!("eva")] {
        folder(|config, _| config["init_lora_weights"] = way)
            .open_adapter()
            .expect("the base stays as it is");
    }
    for (key, value) in [
        ("alora_invocation_tokens", json!([1, 2])),
        ("arrow_config", json!({ "top_k": 3 })),
        ("fan_in_fan_out", json!(true)),
        ("layer_replication", json!([[0, 1], [0, 1]])),
        ("lora_bias", json!(true)),
        ("megatron_config", json!({ "a": 1 })),
        ("modules_to_save", json!(["lm_head"])),
        ("target_parameters", json!(["ffn.up_proj.weight"])),
        ("trainable_token_indices", json!([5])),
        ("use_bdlora", json!({ "nblocks": 2 })),
        ("use_dora", json!(true)),
        ("use_qalora", json!(true)),
        ("an_option_of_tomorrow", json!(1)),
    ] {
        let named = format!("`{key}`");
        refused(|config, _| config[key] = value.clone(), &[CONFIG, &named]);
        folder(|config, _| config[key] = json!(false)).open_adapter().expect("not asked for");
    }
    let defaults = [
        ("megatron_core", json!("megatron.core")),
        ("qalora_group_size", json!(16)),
        ("loftq_config", json!({})),
    ];
    let with_defaults = folder(|config, _| {
        for (key, value) in defaults {
            config[key] = value;
        }
    });
    with_defaults.open_adapter().expect("peft's defaults");
}

#[test]
fn sizes_that_nothing_is_made_of_do_no_harm() {
    folder(|config, _| config["lora_alpha"] = json!(1e300)).open_adapter().expect("a number");
    let patterns: Value =
        (0..15_000).map(|i| (format!("q{i}"), json!(1.0))).collect::<serde_json::Map<_, _>>().into();
    folder(|config, _| config["alpha_pattern"] = patterns)
        .open_adapter()
        .expect("patterns that name no layer");
}
