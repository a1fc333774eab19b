//! Six optimizer steps against those of the reference code.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use mpt_core::testing::largest;
use mpt_core::{AttnMask, Params, Precision, Weights};
use mpt_train::{OptimizerConfig, StepConfig, TokenRows, Trainer};

use crate::shared::{golden, shared};

/// What the steps found: losses, gradient norms and final logits against the reference, within tolerances that allow for
/// six steps of f32 sums in another order.
#[test]
fn lion_steps_are_those_of_the_reference() {
    let lion = OptimizerConfig::Lion { lr: 3e-4, betas: [0.9, 0.99], weight_decay: 0.01 };
    check("lion", &lion, 1e-4);
}

/// AdamW divides by a root that starts near zero, which makes rounding larger.
#[test]
fn adamw_steps_are_those_of_the_reference() {
    // The reference's decay is the product of rate and decay.
    let adamw = OptimizerConfig::AdamW { lr: 2e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 2e-3 * 0.1 };
    check("adamw", &adamw, 1e-3);
}

fn check(name: &str, optimizer: &OptimizerConfig, tolerance: f64) {
    let file = format!("{name}.safetensors");
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    expect_steps(&golden("alibi"), &ours.join(&file), optimizer, tolerance);
    if let Some(root) = shared("fixtures/mpt-tiny") {
        expect_steps(&root.join("nonpow2-heads"), &root.join("train").join(file), optimizer, tolerance);
    }
}

/// Takes the steps that a file of the reference records, from the model it started from.
fn expect_steps(model: &Path, recorded: &Path, optimizer: &OptimizerConfig, tolerance: f64) {
    let expected = candle_core::safetensors::load(recorded, &Device::Cpu).unwrap();
    let mut trainer = trainer(model, optimizer);
    let batches = expected["batches"].to_vec3::<i64>().unwrap();
    for (index, batch) in batches.iter().enumerate() {
        let tokens: Vec<u32> = batch.iter().flatten().map(|&id| id as u32).collect();
        let rows = TokenRows { tokens: &tokens, documents: &vec![0; tokens.len()], seq: batch[0].len() };
        let outcome = trainer.step(rows, 1.0, index as u64 + 1).unwrap();
        close(outcome.loss, &expected["losses"], index, tolerance);
        close(outcome.grad_norm, &expected["grad_norms"], index, tolerance);
    }
    let first: Vec<Vec<u32>> =
        batches[0].iter().map(|row| row.iter().map(|&id| id as u32).collect()).collect();
    let hidden = trainer.model().hidden(&first, &AttnMask::causal(2, first[0].len())).unwrap();
    same_range(&trainer.model().logits(&hidden).unwrap(), &expected["final.logits"], tolerance);
    final_weights(trainer.params(), &expected, tolerance);
}

fn trainer(model: &Path, optimizer: &OptimizerConfig) -> Trainer {
    let weights = Weights::open(model).unwrap();
    let params = Params::load(&weights, &Device::Cpu).unwrap();
    let step = StepConfig {
        steps: 6,
        batch_size: 2,
        microbatch_size: Some(1),
        clip_norm: 1.0,
        seed: 0,
        precision: Precision::F32,
        activation_checkpointing: Some(true),
        eval_every: 0,
        eval_samples: None,
    };
    Trainer::new(weights.config(), params, optimizer, &step).unwrap()
}

fn close(found: f64, expected: &Tensor, index: usize, tolerance: f64) {
    let expected = f64::from(expected.to_vec1::<f32>().unwrap()[index]);
    assert!(
        (found - expected).abs() <= tolerance * expected.abs(),
        "step {index}: {found}, expected {expected}"
    );
}

/// The largest error as a share of the range of the expected values.
fn same_range(found: &Tensor, expected: &Tensor, tolerance: f64) {
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (found, expected) = (values(found), values(expected));
    let (low, high) = expected.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    assert_eq!(found.len(), expected.len());
    let error = largest(found.iter().zip(&expected).map(|(a, b)| a - b));
    assert!(error / f64::from(high - low) <= tolerance, "{error} of {}", high - low);
}

fn final_weights(params: &Params, expected: &HashMap<String, Tensor>, tolerance: f64) {
    for (name, tensor) in expected {
        if let Some(name) = name.strip_prefix("final.").filter(|name| name.ends_with(".weight")) {
            same_range(params.get(name).unwrap(), tensor, 10.0 * tolerance);
        }
    }
}
