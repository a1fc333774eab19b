//! `bench infer` and `bench train` on a tiny model.

use crate::{Run, run_in};

const CONFIG: &str = r#"{"d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 96, "max_seq_len": 64}"#;

fn bench(args: &[&str]) -> Run {
    let temp = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(temp.path().join("config.json"), CONFIG).expect("writable");
    run_in(temp.path(), &[&["bench"], args].concat())
}

fn json(args: &[&str]) -> serde_json::Value {
    let run = bench(&[args, &["--json"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).expect("one document")
}

#[test]
fn infer_says_what_the_contract_names() {
    let infer =
        ["infer", "--config", "config.json", "--prompt", "8", "--gen", "3", "--batch", "2", "--reps", "2"];
    for dtype in ["bf16", "q4_k"] {
        let found = json(&[&infer[..], &["--dtype", dtype]].concat());
        for key in ["prefill_tokens_per_s", "decode_tokens_per_s", "load_seconds", "peak_rss_bytes"] {
            assert!(found[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {found}");
        }
        assert_eq!(found["reps"].as_array().map(Vec::len), Some(2));
    }
    let table = bench(&infer).stdout;
    assert!(table.contains("pp8 x 2") && table.contains("tg3 x 2") && table.contains("GB/s"), "{table}");
}

#[test]
fn train_says_what_the_contract_names() {
    let train = ["train", "--config", "config.json", "--seq-len", "8", "--batch", "2", "--steps", "2"];
    let found = json(&train);
    for key in ["tokens_per_s", "step_seconds", "peak_rss_bytes", "model_flops_utilisation"] {
        assert!(found[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {found}");
    }
}

#[test]
fn a_missing_model_is_a_usage_error() {
    assert_eq!(bench(&["infer"]).code, 2);
    assert_eq!(bench(&["infer", "--config", "config.json", "--model", "m"]).code, 2);
}
