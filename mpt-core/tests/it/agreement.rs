//! The model against the plain reference, and the reference against the fixtures.
//!
//! Tolerances: the reference computes in f64, the model in f32. Logits agree within 2e-5 of their range, losses within
//! 2e-6, and gradients within 1e-4 of the largest gradient of the parameter, or of a hundredth of the model's largest one
//! when that is more: a bias of keys shifts all scores of a query alike, so its gradient is rounding error only. Omitting an
//! option changes logits by 1e-3 and more. The fixtures were computed in f32 with another order of sums, under the limits of
//! `parity`.

use candle_core::Device;
use mpt_core::config::{Activation, RopeScaling};
use mpt_core::testing::largest;
use mpt_core::{Gradients, IGNORE_LABEL, MptConfig, Params, Recompute, TrainBatch, Weights};

use crate::compare::{flat, range, relative_error};
use crate::fixtures::{self, Expected};
use crate::options::{Case, cases, config, ids};
use crate::parity::shifted;
use crate::reference::{Batch, Reference, View};

fn reference<'a>(config: &'a MptConfig, params: &Params) -> Reference<'a> {
    let parameters = params.iter().map(|(name, var)| (name, var.as_tensor()));
    Reference::new(config, parameters).expect("a reference")
}

/// Values of the tokens that are not padding; `values` are `[b * s, width]`.
fn real(values: &[f32], width: usize, batch: &Batch) -> Vec<f32> {
    let seq = batch.dims().1;
    let tokens = values.chunks_exact(width).enumerate();
    let real = tokens.filter(|(token, _)| batch.is_real(token / seq, token % seq));
    real.flat_map(|(_, values)| values.to_vec()).collect()
}

#[test]
fn the_reference_agrees_with_the_fixtures() {
    for (name, dir) in fixtures::cases() {
        let (weights, expected) = (Weights::open(&dir).expect("weights"), Expected::read(&dir));
        let params = Params::load(&weights, &Device::Cpu).expect("parameters");
        let reference = reference(weights.config(), &params);
        let vocab = weights.config().vocab_size;
        let agree = |batch: &Batch, part: &str| {
            let logits = reference.logits(batch).expect("logits");
            let theirs = expected.tensor(&format!("{part}.logits")).expect("logits");
            let [found, theirs] = [&logits, &theirs].map(|tensor| real(&flat(tensor), vocab, batch));
            let error = relative_error(&found, &theirs);
            assert!(error < 1e-4, "{name} {part}: {error:e}");
            logits
        };
        if let Some(rows) = expected.rows("pad.input_ids") {
            let mask = expected.rows("pad.attention_mask").expect("a mask").concat();
            let real = mask.iter().map(|&bit| bit as u8).collect();
            agree(&Batch { rows, view: View::Padded(real) }, "pad");
        }
        let main = Batch { rows: expected.rows("main.input_ids").expect("ids"), view: View::Causal };
        let logits = agree(&main, "main");
        let labels = expected.rows("main.labels").expect("labels");
        let labels: Vec<u32> = labels.iter().flat_map(|row| shifted(row)).collect();
        let kept = labels.iter().filter(|&&label| label != IGNORE_LABEL).count() as f64;
        let loss = (reference.loss_sum(&logits, &labels).expect("a loss") / kept).expect("a mean");
        let theirs = flat(&expected.tensor("main.loss").expect("a loss"))[0];
        assert!((flat(&loss)[0] - theirs).abs() < 1e-5 * theirs, "{name}: {loss}, expected {theirs}");
        let gradients = loss.backward().expect("a backward pass");
        // the gradients of `lora` are the adapter's
        for parameter in expected.names("main.grad.").iter().filter(|_| name != "lora") {
            let theirs = expected.tensor(&format!("main.grad.{parameter}")).expect("a gradient");
            let error = relative_error(&flat(reference.gradient(&gradients, parameter)), &flat(&theirs));
            assert!(error < 1e-3, "{name} {parameter}: {error:e}");
        }
    }
}

#[test]
fn the_reference_agrees_with_the_fixture_of_packed_documents() {
    for dir in fixtures::both("f-sequence-id") {
        let (weights, expected) = (Weights::open(&dir).expect("weights"), Expected::read(&dir));
        let params = Params::load(&weights, &Device::Cpu).expect("parameters");
        let rows = expected.rows("main.input_ids").expect("ids");
        let documents = expected.rows("main.sequence_id").expect("sequence ids").concat();
        let batch = Batch { rows, view: View::Documents(documents) };
        let logits = reference(weights.config(), &params).logits(&batch).expect("logits");
        let error = relative_error(&flat(&logits), &flat(&expected.tensor("main.logits").expect("logits")));
        assert!(error < 1e-4, "{error:e}");
    }
}

/// Causal rows, rows padded on either side, and rows of packed documents.
fn batches(seq: usize) -> [Batch; 3] {
    let rows = |n: u64| (0..n).map(|row| ids(seq, row + 1)).collect();
    let mut real = vec![1; 3 * seq];
    real[seq..][..5].fill(0); // the second row's left
    real[3 * seq - 4..].fill(0); // the third row's right
    let documents =
        (0..2 * seq).map(|token| if token < seq { token / 4 } else { token / 7 } as u32).collect();
    [
        Batch { rows: rows(2), view: View::Causal },
        Batch { rows: rows(3), view: View::Padded(real) },
        Batch { rows: rows(2), view: View::Documents(documents) },
    ]
}

fn expect_agreement(case: &Case, batch: &Batch) {
    let name = &case.name;
    let parameters = case.vars.iter().map(|(name, var)| (name.as_str(), var.as_tensor()));
    let reference = Reference::new(&case.config, parameters).expect("a reference");
    let (model, labels) = (case.model(), batch.labels());
    let theirs = reference.logits(batch).expect("logits");
    let hidden = model.hidden(&batch.rows, &batch.mask()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let logits = model.logits(&hidden).expect("logits");
    let [found, expected] =
        [&logits, &theirs].map(|tensor| real(&flat(tensor), case.config.vocab_size, batch));
    let error = relative_error(&found, &expected);
    assert!(error < 2e-5, "{name}: logits {error:e}");

    let mut gradients = Gradients::default();
    let mask = batch.mask();
    let train = TrainBatch { tokens: &batch.rows, mask: &mask, labels: &labels, dropout: None };
    let loss = model.loss_and_gradients(&train, Recompute::None, &mut gradients).expect("a training pass");
    assert_eq!(loss, model.loss_sum(&hidden, &labels).expect("a loss"), "{name}");
    let expected_loss = reference.loss_sum(&theirs, &labels).expect("a loss");
    let error = relative_error(&[loss as f32], &flat(&expected_loss));
    assert!(error < 2e-6, "{name}: loss {error:e}");

    let expected = expected_loss.backward().expect("gradients");
    let expected: Vec<(&str, Vec<f32>)> =
        reference.names().map(|name| (name, flat(reference.gradient(&expected, name)))).collect();
    let least = 1e-2 * largest(expected.iter().map(|(_, gradient)| range(gradient))) as f32;
    for (parameter, expected) in &expected {
        let gradient = gradients.get(parameter).unwrap_or_else(|error| panic!("{name}: {error}"));
        let scale = range(expected) / range(expected).max(least);
        let error = relative_error(&flat(gradient), expected) * scale;
        assert!(error < 1e-4, "{name}: gradient of `{parameter}` {error:e}");
    }
}

#[test]
fn logits_losses_and_gradients_of_every_option_agree() {
    for case in cases() {
        for batch in batches(case.longest()) {
            expect_agreement(&case, &batch);
        }
    }
}

/// Sequences longer than a block of the attention kernels, with key ranges that begin and end within blocks.
#[test]
fn long_sequences_agree() {
    for (name, keys) in [
        ("long alibi", "{}"),
        ("long window", r#"{"attn_config": {"sliding_window_size": 70}}"#),
        (
            "long cap",
            r#"{"attn_config": {"attn_logit_softcapping": 0.8, "attn_type": "multiquery_attention"}}"#,
        ),
        (
            "long rope",
            r#"{"head_dim": 8, "attn_config": {"alibi": false, "rope": true, "rope_impl": "hf",
                "rope_hf_config": {"type": "dynamic", "factor": 2}, "sliding_window_size": 40}}"#,
        ),
    ] {
        let case = Case::new(name, config(&serde_json::from_str(keys).expect("an object")), 3);
        for batch in batches(150) {
            expect_agreement(&case, &batch);
        }
    }
}

/// Edits that each undo one option of the scores or the logits, for models where a token attends to more than itself.
const UNDO: &[fn(&mut MptConfig)] = &[
    |config| config.attn_config.alibi = false,
    |config| {
        if config.attn_config.alibi {
            config.attn_config.alibi_bias_max = 8.0;
        }
    },
    |config| config.attn_config.rope = None,
    |config| {
        if let Some(rope) = &mut config.attn_config.rope {
            rope.scaling = RopeScaling::None;
        }
    },
    |config| config.attn_config.clip_qkv = None,
    |config| config.attn_config.softmax_scale = 1.0 / (config.head_dim as f64).sqrt(),
    |config| config.attn_config.logit_softcapping = None,
    |config| config.attn_config.sliding_window_size = None,
    |config| config.activation = Activation::Gelu,
    |config| config.norm_eps = 1e-5,
    |config| config.logit_scale = None,
    |config| config.final_logit_softcapping = None,
];

/// The tolerances are tight enough: a model that ignores an option exceeds them by far. The two GELUs are the closest pair.
#[test]
fn every_option_is_felt() {
    for case in cases().iter().filter(|case| case.config.attn_config.sliding_window_size != Some(0)) {
        let batch = &batches(case.longest())[0];
        let logits = |config: &MptConfig| {
            let case = Case { name: case.name.clone(), config: config.clone(), vars: case.vars.clone() };
            let model = case.model();
            flat(&model.logits(&model.hidden(&batch.rows, &batch.mask()).expect("hidden")).expect("logits"))
        };
        let whole = logits(&case.config);
        for (index, undo) in UNDO.iter().enumerate() {
            let mut config = case.config.clone();
            undo(&mut config);
            let limit = if case.config.activation == Activation::GeluTanh { 1e-4 } else { 1e-3 };
            let error = relative_error(&logits(&config), &whole);
            assert!(config == case.config || error > limit, "{}: undoing {index}: {error:e}", case.name);
        }
    }
}
