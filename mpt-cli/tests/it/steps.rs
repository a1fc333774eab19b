//! `steps` against the reference's six steps, and on a tiny model of its own.

use std::path::Path;

use candle_core::{Device, Tensor};
use mpt_core::testing::tiny_model;
use serde_json::{Value, json};

use crate::models::error;
use crate::shared::{golden, shared};
use crate::{Run, run_in};

/// A tiny model in `dir/model`.
pub(crate) fn tiny(dir: &Path) {
    let (config, params) = tiny_model(1);
    std::fs::create_dir(dir.join("model")).expect("writable");
    std::fs::write(dir.join("model/config.json"), config.to_json()).expect("writable");
    params.save(&dir.join("model/model.safetensors")).expect("writable");
}

/// `mpt steps` with sound arguments, those of `changed` in their place.
fn steps(dir: &Path, changed: &[(&str, &str)]) -> Run {
    let mut flags = vec![
        ("--model", "model"),
        ("--batches-file", "batches.json"),
        ("--optimizer", "adamw"),
        ("--lr", "1e-3"),
        ("--betas", "0.9,0.95"),
        ("--weight-decay", "0.01"),
        ("--clip-norm", "1"),
        ("--out", "out.safetensors"),
    ];
    for &(flag, value) in changed {
        flags.retain(|(name, _)| *name != flag);
        flags.push((flag, value));
    }
    let flags = flags.iter().flat_map(|&(flag, value)| [flag, value]);
    run_in(dir, &["steps"].into_iter().chain(flags).collect::<Vec<_>>())
}

fn write_batches(dir: &Path, batches: &Value) {
    std::fs::write(dir.join("batches.json"), batches.to_string()).expect("writable");
}

#[test]
fn six_steps_are_those_of_the_reference() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mpt-train/tests/golden");
    expect_steps(&golden("alibi"), &recorded);
    if let Some(root) = shared("fixtures/mpt-tiny") {
        expect_steps(&root.join("nonpow2-heads"), &root.join("train"));
    }
}

/// Takes the steps that the reference recorded, from the model it started from.
fn expect_steps(model: &Path, recorded: &Path) {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let model = model.to_string_lossy().into_owned();
    for (name, tolerance) in [("lion", 1e-4), ("adamw", 1e-3)] {
        let read = |suffix: &str| recorded.join(format!("{name}.{suffix}"));
        let settings: Value =
            serde_json::from_str(&std::fs::read_to_string(read("json")).expect("readable")).expect("JSON");
        let expected = candle_core::safetensors::load(read("safetensors"), &Device::Cpu).expect("readable");
        write_batches(temp.path(), &json!(expected["batches"].to_vec3::<i64>().expect("ids")));
        let number = |key: &str| settings[key].as_f64().expect("a number");
        // the reference's AdamW takes the product of rate and decay off, its Lion the decay
        let decay = number("weight_decay") * if name == "adamw" { number("lr") } else { 1.0 };
        let betas = settings["betas"].as_array().expect("two").iter().map(Value::to_string);
        let changed = [
            ("--model", model.as_str()),
            ("--optimizer", name),
            ("--lr", &number("lr").to_string()),
            ("--betas", &betas.collect::<Vec<_>>().join(",")),
            ("--weight-decay", &decay.to_string()),
            ("--clip-norm", &number("clip_grad_norm").to_string()),
        ];
        let run = steps(temp.path(), &changed);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stdout.starts_with("step 1: loss "), "{}", run.stdout);
        let found = load(temp.path(), "out.safetensors");
        for curve in ["losses", "grad_norms"] {
            assert_eq!(found[curve].dims(), [6]);
            assert!(error(&found[curve], &expected[curve]) < tolerance as f32, "{name}: {curve}");
        }
        let weights = expected.iter().filter_map(|(key, tensor)| Some((key.strip_prefix("final.")?, tensor)));
        let mut compared = 0;
        for (key, tensor) in weights.filter(|(key, _)| key.ends_with(".weight")) {
            assert!(error(&found[key], tensor) < 10.0 * tolerance as f32, "{name}: {key}");
            compared += 1;
        }
        assert_eq!(compared, 2, "{name}");
    }
}

fn load(dir: &Path, name: &str) -> std::collections::HashMap<String, Tensor> {
    candle_core::safetensors::load(dir.join(name), &Device::Cpu).expect("readable")
}

#[test]
fn the_same_steps_give_the_same_bytes_and_every_weight() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    tiny(temp.path());
    write_batches(temp.path(), &json!([[[1, 2, 3, 4], [5, 6, 7, 8]], [[9, 10, 11, 12], [13, 14, 15, 16]]]));
    let (one, two) = (steps(temp.path(), &[]), steps(temp.path(), &[("--out", "two.safetensors")]));
    assert_eq!((one.code, two.code), (0, 0), "{}", one.stderr);
    assert_eq!(one.stdout, two.stdout);
    let bytes = |name: &str| std::fs::read(temp.path().join(name)).expect("written");
    assert_eq!(bytes("out.safetensors"), bytes("two.safetensors"));
    let (found, start) = (load(temp.path(), "out.safetensors"), load(temp.path(), "model/model.safetensors"));
    assert_eq!((found["losses"].dims(), found["grad_norms"].dims()), (&[2][..], &[2][..]));
    assert_eq!(found.len(), start.len() + 2);
    for (name, tensor) in &start {
        assert_eq!(found[name].dims(), tensor.dims(), "{name}");
    }
    let lion = steps(temp.path(), &[("--optimizer", "lion"), ("--out", "lion.safetensors")]);
    assert_eq!(lion.code, 0, "{}", lion.stderr);
    assert_ne!(bytes("out.safetensors"), bytes("lion.safetensors"));
}

#[test]
fn without_a_rate_a_step_only_decays() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    tiny(temp.path());
    write_batches(temp.path(), &json!([[[1, 2, 3]]]));
    let run = steps(temp.path(), &[("--lr", "0"), ("--weight-decay", "0.25")]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let (found, start) = (load(temp.path(), "out.safetensors"), load(temp.path(), "model/model.safetensors"));
    for (name, tensor) in &start {
        assert!(
            error(&found[name], &(tensor * 0.75).expect("scaled")) < 1e-6 || name.contains("norm"),
            "{name}"
        );
    }
}

#[test]
fn what_is_wrong_is_named() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    tiny(temp.path());
    let fails = |changed: &[(&str, &str)], code: i32, words: &[&str]| {
        let run = steps(temp.path(), changed);
        assert_eq!((run.code, run.stdout.as_str()), (code, ""), "{changed:?}: {}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "{changed:?}: {}", run.stderr);
        }
        assert!(!temp.path().join("out.safetensors").exists(), "{changed:?}");
    };
    fails(&[("--batches-file", "absent.json")], 3, &["absent.json"]);
    for (batches, words) in [
        (json!([[[1, 2, 3], [1, 2]]]), &["batches.json", "batch 0, row 1 has 2 ids", "expected 3"][..]),
        (
            json!([[[1, 2]], [[1, 50]]]),
            &["batches.json", "batch 1, row 0, position 1 is id 50", "vocab_size 50"],
        ),
        (json!([]), &["batches.json", "one or more batches"]),
        (json!([[[1]]]), &["batches.json", "two or more ids"]),
        (json!([[[1, 2]], []]), &["batches.json", "one or more rows"]),
        (json!([[1, 2]]), &["batches.json"]),
    ] {
        write_batches(temp.path(), &batches);
        fails(&[], 3, words);
    }
    write_batches(temp.path(), &json!([[[1, 2, 3]]]));
    for (flag, value, word) in [
        ("--optimizer", "sgd", "lion"),
        ("--lr", "-1e-3", "--lr: is -0.001, expected a finite number, 0 or more"),
        ("--lr", "nan", "--lr"),
        ("--betas", "0.9", "expected two"),
        ("--betas", "0.9,1", "below 1"),
        ("--weight-decay", "-0.1", "--weight-decay"),
        ("--clip-norm", "-1", "--clip-norm"),
        ("--eps", "0", "--eps"),
    ] {
        fails(&[(flag, value)], 2, &[word]);
    }
    fails(&[("--optimizer", "lion"), ("--eps", "1e-8")], 2, &["lion has none"]);
    fails(&[("--model", "absent")], 3, &["absent"]);
}
