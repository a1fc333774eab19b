//! `verify` on the reference's checkpoints and on tiny models: what passes, and what is caught.

use std::path::Path;

use serde_json::Value;

use crate::models::GOLDEN;
use crate::run_in;
use crate::shared::{golden, shared};
use crate::steps::tiny;

/// `mpt verify … --json`: its exit code and its document.
fn verify(dir: &Path, args: &[&str]) -> (i32, Value) {
    let run = run_in(dir, &[&["verify"], args, &["--json"]].concat());
    let document = serde_json::from_str(&run.stdout);
    (run.code, document.unwrap_or_else(|_| panic!("{args:?}: no document; {}", run.stderr)))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("writable");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("writable");
        }
    }
}

#[test]
fn every_reference_model_gives_its_recorded_numbers() {
    GOLDEN.iter().for_each(|case| expect_recorded(&golden(case), 18));
    expect_adapter(&golden("clip"), &golden("lora"));
    let Some(root) = shared("fixtures/mpt-tiny") else { return };
    let entries = std::fs::read_dir(&root).expect("readable").map(|entry| entry.expect("readable").path());
    let models: Vec<_> = entries.filter(|dir| dir.join("config.json").is_file()).collect();
    assert_eq!(models.len(), 27);
    models.iter().for_each(|dir| expect_recorded(dir, 34));
    expect_adapter(&root.join("lora"), &root.join("lora/adapter"));
}

/// At least `positions` of the model's logits are those beside it.
fn expect_recorded(dir: &Path, positions: u64) {
    let model = dir.to_string_lossy().into_owned();
    let (code, found) = verify(dir, &[&model, "--against", &model, "--tolerance", "1e-4"]);
    assert_eq!((code, &found["passed"]), (0, &true.into()), "{model}: {found}");
    assert!(found["positions"].as_u64().is_some_and(|found| found >= positions), "{model}: {found}");
}

fn expect_adapter(model: &Path, adapter: &Path) {
    let [model, adapter] = [model, adapter].map(|path| path.to_string_lossy().into_owned());
    let args = [&model, "--adapter", &adapter, "--against", &adapter, "--tolerance", "1e-4"];
    let (code, found) = verify(Path::new("."), &args);
    assert_eq!((code, &found["passed"]), (0, &true.into()), "{found}");
    let without = [&args[..1], &args[3..]].concat();
    assert_eq!(verify(Path::new("."), &without).0, 1, "the adapter is left out");
}

#[test]
fn damage_to_a_reference_model_is_found() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let reference = golden("alibi").to_string_lossy().into_owned();
    copy(&golden("alibi"), &temp.path().join("changed"));
    let weights = temp.path().join("changed/model.safetensors");
    let sound = std::fs::read(&weights).expect("readable");
    let mut bytes = sound.clone();
    // the high byte of the last number, whatever tensor it belongs to
    *bytes.last_mut().expect("not empty") ^= 0x41;
    std::fs::write(&weights, bytes).expect("writable");
    let (code, found) = verify(temp.path(), &["changed", "--against", &reference]);
    assert_eq!((code, &found["passed"]), (1, &false.into()), "{found}");
    std::fs::write(&weights, sound).expect("writable");
    let config = temp.path().join("changed/config.json");
    let text = std::fs::read_to_string(&config).expect("readable");
    let mut edited: Value = serde_json::from_str(&text).expect("JSON");
    edited["attn_config"]["alibi_bias_max"] = 16.into();
    std::fs::write(&config, edited.to_string()).expect("writable");
    let (code, found) = verify(temp.path(), &["changed", "--against", &reference]);
    assert_eq!((code, &found["worst"]["part"]), (1, &"long".into()), "{found}");
}

#[test]
fn a_model_without_alibi_is_another_model() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let reference = golden("alibi").to_string_lossy().into_owned();
    copy(&golden("alibi"), &temp.path().join("changed"));
    let config = temp.path().join("changed/config.json");
    let text = std::fs::read_to_string(&config).expect("readable");
    let mut edited: Value = serde_json::from_str(&text).expect("JSON");
    edited["attn_config"]["alibi"] = false.into();
    edited["learned_pos_emb"] = false.into();
    std::fs::write(&config, edited.to_string()).expect("writable");
    let (code, found) = verify(temp.path(), &["changed", "--against", &reference]);
    assert_eq!((code, &found["passed"]), (1, &false.into()), "{found}");
}

#[test]
fn two_models_are_compared_with_every_key() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    tiny(temp.path());
    let (code, found) = verify(temp.path(), &["model", "--against", "model"]);
    assert_eq!(code, 0, "{found}");
    let keys = [
        "passed",
        "tolerance",
        "max_error",
        "relative_error",
        "kl_mean",
        "kl_max",
        "top1_agreement",
        "perplexity",
        "perplexity_against",
        "positions",
        "worst",
    ];
    for key in keys {
        assert!(found.get(key).is_some(), "{key}: {found}");
    }
    assert_eq!((&found["max_error"], &found["top1_agreement"]), (&0.0.into(), &1.0.into()));
    assert_eq!(found["tolerance"], 1e-4);
    let rounded = ["model", "--dtype", "bf16", "--against", "model"];
    let (code, found) = verify(temp.path(), &rounded);
    assert_eq!((code, &found["tolerance"]), (0, &5e-2.into()), "{found}");
    assert!(found["relative_error"].as_f64().is_some_and(|error| error > 1e-4), "{found}");
    for limit in [["--tolerance", "1e-6"], ["--max-kl", "1e-12"]] {
        let (code, found) = verify(temp.path(), &[&rounded[..], &limit].concat());
        assert_eq!((code, &found["passed"]), (1, &false.into()), "{limit:?}: {found}");
    }
}

#[test]
fn conversions_are_proved() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    tiny(temp.path());
    for args in
        [&["model", "m.gguf", "--to", "gguf"][..], &["model", "half", "--to", "hf", "--dtype", "bf16"]]
    {
        let run = run_in(temp.path(), &[&["convert"], args].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
    // what keeps the form keeps every number; what narrows it may be as far off as the form allows
    for (args, tolerance) in [
        (&["m.gguf", "--against", "model"][..], 1e-4),
        (&["half", "--against", "model"], 5e-2),
        (&["half", "--against", "m.gguf", "--dtype", "f32"], 5e-2),
        (&["model", "--dtype", "bf16", "--against", "half"], 1e-4),
    ] {
        let (code, found) = verify(temp.path(), args);
        assert_eq!((code, &found["tolerance"]), (0, &tolerance.into()), "{args:?}: {found}");
    }
}

#[test]
fn a_model_on_its_own_is_checked_and_damage_is_named() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    tiny(temp.path());
    let (code, found) = verify(temp.path(), &["model"]);
    assert_eq!((code, &found["passed"], &found["perplexity"]), (0, &true.into(), &Value::Null), "{found}");
    assert_eq!(found["checks"].as_array().map(Vec::len), Some(4), "{found}");
    std::fs::write(temp.path().join("ids.json"), "[[1,2,3,4],[5,6]]").expect("writable");
    let (code, found) = verify(temp.path(), &["model", "--ids-file", "ids.json"]);
    assert!(code == 0 && found["perplexity"].as_f64().is_some_and(|value| value > 1.0), "{found}");
    let weights = temp.path().join("model/model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("readable");
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&weights, bytes).expect("writable");
    let run = run_in(temp.path(), &["verify", "model"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let line = "FAILED weights are finite: `transformer.wte.weight` is not finite at value 1599";
    assert!(run.stdout.contains(line), "{}", run.stdout);
}

#[test]
fn what_is_wrong_is_named() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    tiny(temp.path());
    let write = |name: &str, text: &str| std::fs::write(temp.path().join(name), text).expect("writable");
    write("outside.json", "[[1, 50]]");
    write("empty.json", "[[1], []]");
    write("text.txt", "a text");
    for (args, code, word) in [
        (&["absent"][..], 3, "absent"),
        (&["model", "--against", "absent"], 3, "absent"),
        (&["model", "--ids-file", "absent.json"], 3, "absent.json"),
        (&["model", "--ids-file", "outside.json"], 3, "holds id 50, expected ids below 50"),
        (&["model", "--ids-file", "empty.json"], 3, "none empty"),
        (&["model", "--text", "text.txt"], 3, "tokenizer.json"),
        (&["model", "--tolerance", "-1"], 2, "--tolerance"),
        (&["model", "--tolerance", "nan"], 2, "--tolerance"),
        (&["model", "--against", "model", "--min-top1", "1.5"], 2, "--min-top1"),
        (&["model", "--text", "text.txt", "--ids-file", "empty.json"], 2, "--ids-file"),
    ] {
        let run = run_in(temp.path(), &[&["verify"], args].concat());
        assert_eq!((run.code, run.stdout.as_str()), (code, ""), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(word), "{args:?}: {}", run.stderr);
    }
}
