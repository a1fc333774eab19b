//! `score`, `grad` and `generate` on the reference's checkpoints.

use std::path::Path;

use candle_core::{Device, Tensor};
use mpt_core::testing::largest;

use crate::run_in;
use crate::shared::{golden, shared};

/// Golden models, which every clone has.
pub(crate) const GOLDEN: [&str; 6] = ["alibi", "three-heads", "clip", "f-qk-ln", "f-gqa", "f-rmsnorm-glu"];

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().expect("flat").to_vec1().expect("f32")
}

/// The largest error, as a share of the range of what is expected.
pub(crate) fn error(found: &Tensor, expected: &Tensor) -> f32 {
    let (found, expected) = (values(found), values(expected));
    assert_eq!(found.len(), expected.len());
    let (low, high) = expected.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    largest(found.iter().zip(&expected).map(|(a, b)| a - b)) as f32 / (high - low)
}

pub(crate) fn json_rows(dir: &Path, name: &str, tensor: &Tensor) -> String {
    let rows = tensor.to_vec2::<i64>().expect("rows of ids");
    let path = dir.join(name);
    std::fs::write(&path, serde_json::to_string(&rows).expect("JSON")).expect("writable");
    path.to_string_lossy().into_owned()
}

#[test]
fn scores_gradients_and_texts_are_those_of_the_reference() {
    GOLDEN.iter().for_each(|case| expect_reference(&golden(case)));
    let Some(root) = shared("fixtures/mpt-tiny") else { return };
    for case in [
        "pow2-heads",
        "nonpow2-heads",
        "odd-heads",
        "clip-qkv-8",
        "logit-scale",
        "untied",
        "f-bias",
        "f-rmsnorm-glu",
    ] {
        expect_reference(&root.join(case));
    }
}

fn expect_reference(dir: &Path) {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let (case, out) = (dir.display(), temp.path().join("out.safetensors"));
    let expected =
        candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu).expect("readable");
    let model = dir.to_string_lossy().into_owned();
    let ids = json_rows(temp.path(), "ids.json", &expected["main.input_ids"]);
    let labels = json_rows(temp.path(), "labels.json", &expected["main.labels"]);
    let files = ["--model", &model, "--ids-file", &ids, "--labels-file", &labels, "--out", "out.safetensors"];
    let done = |command: &str, args: &[&str]| {
        let run = run_in(temp.path(), &[&[command], args].concat());
        assert_eq!(run.code, 0, "{case}: {}", run.stderr);
        run.stdout
    };
    done("score", &files);
    let scores = candle_core::safetensors::load(&out, &Device::Cpu).expect("readable");
    assert!(error(&scores["logits"], &expected["main.logits"]) < 1e-4, "{case}");
    done("grad", &files);
    let gradients = candle_core::safetensors::load(&out, &Device::Cpu).expect("readable");
    for (name, gradient) in &gradients {
        if let Some(expected) = expected.get(&format!("main.grad.{name}")) {
            assert!(error(gradient, expected) < 1e-3, "{case}: {name}");
        }
    }
    let prompt: Vec<_> =
        expected["greedy.input_ids"].to_vec2::<i64>().expect("ids")[0].iter().map(i64::to_string).collect();
    let wanted = expected["greedy.new_tokens"].to_vec2::<i64>().expect("ids");
    let (prompt, tokens) = (prompt.join(","), wanted[0].len().to_string());
    let args = ["--model", &model, "--prompt-ids", &prompt, "--max-new-tokens", &tokens, "--json"];
    let text: serde_json::Value = serde_json::from_str(&done("generate", &args)).expect("JSON");
    assert_eq!(text["choices"][0]["ids"], serde_json::json!(wanted[0]), "{case}");
}
