//! Verification on tiny models: what passes, and which damage each check finds.

use std::path::Path;

use candle_core::{Device, Tensor};
use mpt_core::testing::tiny_model;
use mpt_core::{AttnMask, CausalLm, MptConfig, Params, WeightDtype, Weights, write_safetensors};
use mpt_infer::verify::{
    Fixture, Limits, MatrixDtypes, builtin_rows, compare_models, compare_weights, first_non_finite,
    limits_alone, limits_between, self_check,
};

fn model(config: &MptConfig, params: &Params) -> CausalLm {
    CausalLm::new(config, params).unwrap()
}

fn save(dir: &Path, config: &MptConfig, params: &Params) {
    std::fs::write(dir.join("config.json"), config.to_json()).unwrap();
    params.save(&dir.join("model.safetensors")).unwrap();
}

#[test]
fn a_model_equals_itself_at_every_position() {
    let (config, params) = tiny_model(1);
    let model = model(&config, &params);
    let rows = builtin_rows(&config, 0);
    let mut tokens = 0;
    let found = compare_models(&model, &model, &rows, true, &mut |n| tokens += n).unwrap();
    let all: usize = rows.iter().map(Vec::len).sum();
    assert_eq!((found.positions, tokens), (all as u64, 2 * all));
    assert_eq!((found.max_error, found.kl_max, found.top1_agreement), (0.0, 0.0, 1.0));
    assert_eq!(found.perplexity, found.perplexity_against);
    let none = compare_models(&model, &model, &rows, false, &mut |_| {}).unwrap();
    assert_eq!(none.perplexity, None);
}

#[test]
fn a_changed_weight_and_another_vocabulary_are_found() {
    let (config, params) = tiny_model(1);
    let (_, changed) = tiny_model(1);
    let name = "transformer.blocks.1.ffn.up_proj.weight";
    let mut values = changed.get(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values[17] += 0.5;
    changed.set(name, &values).unwrap();
    let rows = builtin_rows(&config, 0);
    let (one, other) = (model(&config, &params), model(&config, &changed));
    let found = compare_models(&one, &other, &rows, false, &mut |_| {}).unwrap();
    let limits = Limits { tolerance: 1e-4, max_kl: None, min_top1: None };
    assert!(!limits.broken(&found).is_empty(), "{found:?}");
    assert!(found.kl_mean > 0.0 && found.kl_max >= found.kl_mean, "{found:?}");
    let larger = MptConfig::mpt(32, 2, 4, 64, 16).unwrap();
    let params = Params::init(&larger, 1, &Device::Cpu).unwrap();
    let error = compare_models(&one, &model(&larger, &params), &rows, false, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("50 ids") && error.to_string().contains("64"), "{error}");
}

#[test]
fn rounding_stays_within_the_tolerance_of_its_form() {
    let dir = tempfile::tempdir().unwrap();
    let (config, params) = tiny_model(1);
    save(dir.path(), &config, &params);
    let exact = Weights::open(dir.path()).unwrap();
    let reference = CausalLm::new(&config, &exact).unwrap();
    for format in [WeightDtype::F16, WeightDtype::BF16] {
        let rounded = exact.clone().with_dtype(format);
        let found = CausalLm::new(&config, &rounded).unwrap();
        let found =
            compare_models(&found, &reference, &builtin_rows(&config, 0), false, &mut |_| {}).unwrap();
        let forms = [format, WeightDtype::F32].map(|asked| MatrixDtypes::of(&exact, asked).unwrap());
        assert_eq!(forms[0].narrowest(), format);
        let tolerance = limits_between(&forms[0], Some(&forms[1])).tolerance;
        assert!(found.relative_error > 1e-4 && found.relative_error < tolerance / 3.0, "{format}: {found:?}");
        assert_eq!(limits_between(&forms[0], Some(&forms[0])).tolerance, 1e-4);
    }
}

/// What sums in another order keep to.
const EXACT: Limits = Limits { tolerance: 1e-4, max_kl: Some(1e-6), min_top1: Some(0.9) };

/// A model whose rows are long enough for every form.
fn wide(dir: &Path, seed: u64) -> (MptConfig, Params) {
    let config = MptConfig::mpt(256, 2, 4, 320, 32).unwrap();
    let params = Params::init(&config, seed, &Device::Cpu).unwrap();
    save(dir, &config, &params);
    (config, params)
}

const ROUNDED: [WeightDtype; 8] = [
    WeightDtype::F16,
    WeightDtype::BF16,
    WeightDtype::Q8_0,
    WeightDtype::Q6K,
    WeightDtype::Q5K,
    WeightDtype::Q4K,
    WeightDtype::Q4_0,
    WeightDtype::Nf4,
];

#[test]
fn sound_models_of_every_form_pass_alone_and_against_the_exact_one() {
    let dir = tempfile::tempdir().unwrap();
    let (config, _) = wide(dir.path(), 5);
    let exact = Weights::open(dir.path()).unwrap();
    let reference = CausalLm::new(&config, &exact).unwrap();
    let rows = builtin_rows(&config, 0);
    for form in ROUNDED {
        let weights = exact.clone().with_dtype(form);
        let found = CausalLm::new(&config, &weights).unwrap();
        let forms = MatrixDtypes::of(&exact, form).unwrap();
        let alone = self_check(&found, &rows, &limits_alone(&forms), false, &mut |_| {}).unwrap();
        assert!(alone.checks.iter().all(|check| check.passed), "{form}: {alone:?}");
        let limits = limits_between(&forms, Some(&MatrixDtypes::of(&exact, WeightDtype::F32).unwrap()));
        let compared = compare_models(&found, &reference, &rows, false, &mut |_| {}).unwrap();
        assert_eq!(limits.broken(&compared), [""; 0], "{form}: {compared:?}");
        let matrices = compare_weights(&weights, &exact).unwrap();
        assert!(matrices.passed, "{form}: {matrices:?}");
    }
}

#[test]
fn a_layer_that_is_zero_or_another_fails_in_every_form() {
    let (dir, broken_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (config, params) = wide(dir.path(), 5);
    let exact = Weights::open(dir.path()).unwrap();
    let name = |layer| format!("transformer.blocks.{layer}.attn.out_proj.weight");
    let sound = |layer| params.get(&name(layer)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for values in [vec![0.0; 256 * 256], sound(1)] {
        let (_, broken) = wide(broken_dir.path(), 5);
        broken.set(&name(0), &values).unwrap();
        save(broken_dir.path(), &config, &broken);
        for form in ROUNDED {
            let weights = Weights::open(broken_dir.path()).unwrap().with_dtype(form);
            let check = compare_weights(&weights, &exact).unwrap();
            assert!(!check.passed && check.detail.contains(&name(0)), "{form}: {check:?}");
        }
    }
}

#[test]
fn a_sound_model_holds_its_own_checks_with_any_rows() {
    let (config, params) = tiny_model(2);
    let model = model(&config, &params);
    let equal = vec![(0..20).collect::<Vec<u32>>(), (20..40).collect()];
    for (rows, predict) in [(builtin_rows(&config, 0), false), (equal, true)] {
        let report = self_check(&model, &rows, &EXACT, predict, &mut |_| {}).unwrap();
        assert!(report.checks.iter().all(|check| check.passed), "{report:?}");
        assert_eq!(report.perplexity.is_some(), predict);
        assert!(report.comparison.positions > 0);
    }
}

#[test]
fn numbers_that_are_not_finite_are_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (config, params) = tiny_model(3);
    save(dir.path(), &config, &params);
    assert_eq!(first_non_finite(&Weights::open(dir.path()).unwrap()).unwrap(), None);
    let name = "transformer.blocks.0.ffn.down_proj.weight";
    let mut values = params.get(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values[300] = f32::NAN;
    params.set(name, &values).unwrap();
    save(dir.path(), &config, &params);
    let weights = Weights::open(dir.path()).unwrap();
    assert_eq!(first_non_finite(&weights).unwrap(), Some((name.to_owned(), 300)));
    let rows = builtin_rows(&config, 0);
    let report = self_check(&model(&config, &params), &rows, &EXACT, false, &mut |_| {}).unwrap();
    assert!(report.checks.iter().all(|check| !check.passed), "{report:?}");
    assert!(report.checks[0].detail.contains("row 0, position 0"), "{report:?}");
}

/// Writes what `model` computes as a fixture would hold it: full logits of two rows, the last of a padded batch.
fn record(dir: &Path, model: &CausalLm) {
    let rows = [[1u32, 2, 3, 4, 5, 6], [9, 8, 7, 6, 5, 4]];
    let mask = [0u8, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
    let logits = |mask: &AttnMask| model.logits(&model.hidden(&rows, mask).unwrap()).unwrap();
    let main = logits(&AttnMask::causal(2, 6));
    let pad = logits(&AttnMask::padded(&mask, 2, 6).unwrap()).narrow(1, 4, 2).unwrap();
    let ids: Vec<f32> = rows.concat().iter().map(|&id| id as f32).collect();
    let ids = Tensor::from_vec(ids, (2, 6), &Device::Cpu).unwrap();
    let mask = Tensor::from_vec(mask.map(f32::from).to_vec(), (2, 6), &Device::Cpu).unwrap();
    let tensors = [
        ("main.input_ids", &ids),
        ("main.logits", &main),
        ("pad.input_ids", &ids),
        ("pad.attention_mask", &mask),
        ("pad.logits_last8", &pad),
    ];
    write_safetensors(&dir.join("expected.safetensors"), tensors.into_iter()).unwrap();
}

#[test]
fn recorded_numbers_are_compared_part_by_part() {
    let dir = tempfile::tempdir().unwrap();
    let (config, params) = tiny_model(4);
    let sound = model(&config, &params);
    assert!(!Fixture::is_in(dir.path()));
    record(dir.path(), &sound);
    assert!(Fixture::is_in(dir.path()));
    let fixture = Fixture::open(dir.path()).unwrap();
    let report = fixture.compare(&sound, 1e-4, &mut |_| {}).unwrap();
    assert_eq!((report.comparison.positions, report.greedy), (16, None));
    assert!(report.comparison.relative_error < 1e-6, "{report:?}");
    let other = model(&config, &tiny_model(5).1);
    let report = fixture.compare(&other, 1e-4, &mut |_| {}).unwrap();
    assert!(report.comparison.relative_error > 0.1, "{report:?}");
}

#[test]
fn unusable_recordings_name_the_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("expected.safetensors");
    let message = |tensors: &[(&str, &Tensor)]| {
        write_safetensors(&path, tensors.iter().copied()).unwrap();
        Fixture::open(dir.path()).unwrap_err().to_string()
    };
    let of = |shape: &[usize], value: f32| Tensor::full(value, shape, &Device::Cpu).unwrap();
    let (ids, logits) = (of(&[2, 3], 1.0), of(&[2, 4, 5], 0.0));
    assert!(message(&[("main.input_ids", &ids)]).contains("`main.logits` is missing"));
    assert!(message(&[("main.logits", &logits)]).contains("`main.input_ids` is missing"));
    let found = message(&[("main.input_ids", &ids), ("main.logits", &logits)]);
    assert!(found.contains("`main.logits` has shape [2, 4, 5] beside ids of [2, 3]"), "{found}");
    assert!(message(&[("main.input_ids", &of(&[2, 3], -7.0))]).contains("holds -7"));
    assert!(message(&[("main.input_ids", &of(&[3], 1.0))]).contains("rows of token ids"));
    std::fs::write(&path, b"damaged").unwrap();
    assert!(Fixture::open(dir.path()).unwrap_err().to_string().contains("expected.safetensors"));
}
