//! Conversions read back: safetensors shards, GGUF, merged adapters.

use std::ops::ControlFlow;
use std::path::Path;

use candle_core::{Device, Tensor};
use mpt_core::testing::{assert_close, tiny_model};
use mpt_core::{
    Adapter, ConvertOptions, LoraConfig, MptConfig, Params, WeightDtype, Weights, config_json, write_gguf,
    write_hf, write_random_init,
};

use crate::fixtures::{Expected, case};
use crate::shared::golden;

fn saved(dir: &Path) -> Weights {
    let (config, params) = tiny_model(1);
    std::fs::write(dir.join("config.json"), config.to_json()).expect("writable");
    params.save(&dir.join("model.safetensors")).expect("writable");
    Weights::open(dir).expect("a sound model")
}

fn folder(weights: &Weights, dir: &Path, options: &ConvertOptions<'_>) -> Weights {
    std::fs::create_dir_all(dir).expect("creatable");
    let mut bytes = 0;
    let converted = write_hf(weights, dir, options, &mut |more| {
        bytes += more;
        ControlFlow::Continue(())
    })
    .expect("a conversion");
    assert_eq!(converted.bytes, bytes);
    let config = config_json(weights.config(), &converted, None);
    std::fs::write(dir.join("config.json"), config).expect("writable");
    Weights::open(dir).expect("a sound model")
}

fn gguf(weights: &Weights, path: &Path, options: &ConvertOptions<'_>) -> Weights {
    let go_on = &mut |_| ControlFlow::Continue(());
    write_gguf(weights, path, "tiny", options, &mut |header| header.text("test.key", "value"), go_on)
        .expect("a conversion");
    Weights::open(path).expect("a sound file")
}

fn tensor(weights: &Weights, name: &str) -> Tensor {
    weights.tensor(name, None).expect("a tensor").to_tensor(&Device::Cpu).expect("f32 values")
}

fn assert_same(a: &Weights, b: &Weights) {
    for name in a.config().parameter_shapes().keys() {
        assert_close(&tensor(a, name), &tensor(b, name), 0.0);
    }
}

#[test]
fn f32_survives_every_format() {
    let dir = tempfile::tempdir().expect("a folder");
    let weights = saved(dir.path());
    let small = ConvertOptions { max_shard_size: Some(20_000), ..ConvertOptions::default() };
    let shards = folder(&weights, &dir.path().join("shards"), &small);
    assert!(shards.files().count() > 2);
    assert_same(&weights, &shards);
    let file = gguf(&weights, &dir.path().join("model.gguf"), &ConvertOptions::default());
    assert_same(&weights, &file);
    assert_eq!(file.metadata().expect("metadata").text("test.key"), Some("value"));
    assert_eq!(file.config().parameter_shapes(), weights.config().parameter_shapes());
    let again = folder(&file, &dir.path().join("again"), &ConvertOptions::default());
    assert_same(&weights, &again);
    assert_eq!(again.config(), weights.config());
}

#[test]
fn sixteen_bits_are_rounded_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let weights = saved(dir.path());
    for dtype in [WeightDtype::BF16, WeightDtype::F16] {
        let options = ConvertOptions { dtype: Some(dtype), ..ConvertOptions::default() };
        let there = folder(&weights, &dir.path().join(dtype.name()), &options);
        assert_eq!(there.matrix_dtype(), Some(dtype));
        let rounded = weights.clone().with_dtype(dtype);
        let name = "transformer.blocks.1.attn.Wqkv.weight";
        assert_close(&tensor(&there, name), &tensor(&rounded, name), 0.0);
        let file = gguf(&there, &dir.path().join("model.gguf"), &ConvertOptions::default());
        assert_same(&there, &file);
        let wide = ConvertOptions { dtype: Some(WeightDtype::F32), ..ConvertOptions::default() };
        assert_same(&there, &folder(&file, &dir.path().join(format!("{dtype}-wide")), &wide));
    }
}

#[test]
fn the_same_weights_give_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let weights = saved(dir.path());
    let bytes = |name: &str| {
        let path = dir.path().join(name);
        gguf(&weights, &path, &ConvertOptions::default());
        std::fs::read(path).expect("readable")
    };
    assert_eq!(bytes("a.gguf"), bytes("b.gguf"));
}

#[test]
fn a_random_init_is_the_one_training_begins_with() {
    let dir = tempfile::tempdir().expect("a folder");
    let (config, params) = tiny_model(5);
    let go_on = &mut |_| ControlFlow::Continue(());
    write_random_init(&config, 5, dir.path(), &ConvertOptions::default(), go_on).expect("a model");
    std::fs::write(dir.path().join("config.json"), config.to_json()).expect("writable");
    let weights = Weights::open(dir.path()).expect("a sound model");
    for (name, var) in params.iter() {
        assert_close(&tensor(&weights, name), var, 0.0);
    }
}

#[test]
fn an_interrupt_is_an_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let weights = saved(dir.path());
    let stop = &mut |_| ControlFlow::Break(());
    let out = tempfile::tempdir().expect("a folder");
    let error = write_hf(&weights, out.path(), &ConvertOptions::default(), stop).expect_err("interrupted");
    assert!(error.to_string().contains("interrupted"), "{error}");
}

#[test]
fn options_llama_cpp_lacks_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    for (key, field) in [
        (r#""logit_scale": 0.5"#, "logit_scale"),
        (r#""norm_type": "rmsnorm""#, "norm_type"),
        (r#""attn_config": {"softmax_scale": 0.1}"#, "softmax_scale"),
        (r#""attn_config": {"alibi": false, "rope": true}"#, "rope"),
        (r#""attn_config": {"fused_qkv": false}"#, "fused_qkv"),
    ] {
        let json = format!(r#"{{"d_model": 16, "n_heads": 2, "n_layers": 1, "vocab_size": 8, {key}}}"#);
        let config = MptConfig::from_json(&json, Path::new("config.json")).expect("a configuration");
        std::fs::write(dir.path().join("config.json"), config.to_json()).expect("writable");
        let params = Params::init(&config, 1, &Device::Cpu).expect("parameters");
        params.save(&dir.path().join("model.safetensors")).expect("writable");
        let weights = Weights::open(dir.path()).expect("a sound model");
        let path = dir.path().join("model.gguf");
        let go_on = &mut |_| ControlFlow::Continue(());
        let error = write_gguf(&weights, &path, "x", &ConvertOptions::default(), &mut |_| {}, go_on)
            .expect_err("refused");
        assert!(error.to_string().contains(&format!("`{field}`")), "{error}");
    }
}

#[test]
fn an_adapter_is_saved_opened_and_folded_in() {
    let dir = tempfile::tempdir().expect("a folder");
    let weights = saved(dir.path());
    let target_modules = ["Wqkv", "down_proj"].map(str::to_owned).to_vec();
    let config = LoraConfig { r: 4, lora_alpha: 8.0, target_modules, use_rslora: true };
    let adapter = Adapter::init(weights.config(), config, 3, &Device::Cpu).expect("an adapter");
    for (name, var) in adapter.vars().filter(|(name, _)| name.contains("lora_B")) {
        let values = mpt_core::testing::random(var.dims(), name.len() as u64);
        var.set(&values).expect("a value");
    }
    let at = dir.path().join("adapter");
    adapter.save(&at, "base").expect("writable");
    let opened = Adapter::open(&at, weights.config()).expect("an adapter");
    assert_eq!(opened.config(), adapter.config());
    for ((name, a), (_, b)) in adapter.vars().zip(opened.vars()) {
        assert_close(a, b, 0.0);
        assert!(name.starts_with("base_model.model.transformer.blocks."), "{name}");
    }
    let options = ConvertOptions { adapter: Some(&opened), ..ConvertOptions::default() };
    let merged = folder(&weights, &dir.path().join("merged"), &options);
    let layer = "transformer.blocks.1.attn.Wqkv";
    let lora = opened.layer(layer.parse().expect("a linear")).expect("an adapted layer");
    assert_eq!(lora.scale, 4.0); // 8 / sqrt(4)
    let delta = (lora.b.matmul(&lora.a).expect("a product") * lora.scale).expect("scaled");
    let name = format!("{layer}.weight");
    let expected = (tensor(&weights, &name) + delta).expect("a sum");
    assert_close(&tensor(&merged, &name), &expected, 1e-6);
    let other = "transformer.blocks.1.attn.out_proj.weight";
    assert_close(&tensor(&merged, other), &tensor(&weights, other), 0.0);
}

#[test]
fn merging_agrees_with_the_reference() {
    expect_merged(&golden("clip"), &golden("lora"));
    if let Some(dir) = case("lora") {
        expect_merged(&dir, &dir.join("adapter"));
    }
}

fn expect_merged(base: &Path, adapter: &Path) {
    let (weights, expected) = (Weights::open(base).expect("weights"), Expected::read(adapter));
    let adapter = Adapter::open(adapter, weights.config()).expect("an adapter");
    let out = tempfile::tempdir().expect("a folder");
    let dtype = Some(WeightDtype::F32);
    let options = ConvertOptions { adapter: Some(&adapter), dtype, ..ConvertOptions::default() };
    let merged = folder(&weights, out.path(), &options);
    let names = expected.names("merged.");
    let weight = names.iter().find(|name| name.ends_with(".weight")).expect("a merged weight");
    let name = weight.trim_start_matches("weight.");
    assert_close(
        &tensor(&merged, name),
        &expected.tensor(&format!("merged.{weight}")).expect("a weight"),
        1e-6,
    );
}

/// Model whose fourth value of `wte` is `value`.
fn with_value(dir: &Path, value: f32) -> Weights {
    let (config, params) = tiny_model(1);
    let wte = params.iter().find(|(name, _)| *name == "transformer.wte.weight").expect("there").1;
    let mut values: Vec<f32> = wte.flatten_all().and_then(|wte| wte.to_vec1()).expect("f32 values");
    values[3] = value;
    wte.set(&Tensor::from_vec(values, wte.dims(), &Device::Cpu).expect("a shape")).expect("the same shape");
    std::fs::write(dir.join("config.json"), config.to_json()).expect("writable");
    params.save(&dir.join("model.safetensors")).expect("writable");
    Weights::open(dir).expect("a sound model")
}

#[test]
fn values_beyond_a_dtype_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let go_on = &mut |_| ControlFlow::Continue(());
    for (dtype, fits, too_large) in
        [(WeightDtype::F16, 65_519.0, 65_520.0), (WeightDtype::BF16, 3.38e38, f32::MAX)]
    {
        let options = ConvertOptions { dtype: Some(dtype), ..ConvertOptions::default() };
        let out = dir.path().join(dtype.name());
        std::fs::create_dir_all(&out).expect("creatable");
        write_hf(&with_value(dir.path(), fits), &out, &options, go_on).expect("it fits");
        let weights = with_value(dir.path(), -too_large);
        let error = write_hf(&weights, &out, &options, go_on).expect_err("too large").to_string();
        assert!(error.contains("transformer.wte.weight") && error.contains("value 3 is -"), "{error}");
    }
    let weights = with_value(dir.path(), 65_520.0);
    let options = ConvertOptions { dtype: Some(WeightDtype::F16), ..ConvertOptions::default() };
    let path = dir.path().join("a.gguf");
    let error = write_gguf(&weights, &path, "x", &options, &mut |_| {}, go_on).expect_err("too large");
    assert!(error.to_string().contains("value 3 is 6.552e4"), "{error}");
}

#[test]
fn the_file_type_is_that_of_what_was_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = ConvertOptions { dtype: Some(WeightDtype::Q4K), ..ConvertOptions::default() };
    let weights = gguf(&saved(dir.path()), &dir.path().join("a.gguf"), &options);
    assert_eq!(weights.matrix_dtype(), Some(WeightDtype::Q8_0), "rows of 32 values");
    assert_eq!(weights.metadata().expect("GGUF").int("general.file_type"), Some(7));
}
