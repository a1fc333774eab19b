//! Folders of adapters that do not fit, or whose configuration asks for what is not done.

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
fn sizes_that_nothing_is_made_of_do_no_harm() {
    folder(|config, _| config["r"] = json!(u64::MAX)).open_adapter().expect("the rank is the tensors'");
    folder(|config, _| config["lora_alpha"] = json!(1e300)).open_adapter().expect("a number");
    let patterns: Value =
        (0..15_000).map(|i| (format!("q{i}"), json!(1.0))).collect::<serde_json::Map<_, _>>().into();
    folder(|config, _| config["alpha_pattern"] = patterns)
        .open_adapter()
        .expect("patterns that name no layer");
}
