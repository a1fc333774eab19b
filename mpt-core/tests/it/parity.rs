//! Logits, hidden states, losses and gradients of the golden cases and of the cases beside the checkout.
//!
//! Tolerances: both sides compute in f32 and differ in the order of sums. Logits agree within 1e-4 of the range of the
//! logits, gradients within 1e-3 of the largest gradient of the parameter.

use std::path::Path;

use candle_core::{Device, Tensor};
use mpt_core::nn::Block;
use mpt_core::nn::KeyValues;
use mpt_core::testing::largest;
use mpt_core::{
    Adapter, AttnMask, CausalLm, Gradients, MptConfig, Params, Recompute, TrainBatch, WeightDtype, Weights,
    WithAdapter,
};

use crate::compare::{flat, relative_error};
use crate::fixtures::{Expected, both, case, cases};
use crate::shared::golden;

struct Loaded {
    model: CausalLm,
    expected: Expected,
}

fn load(dir: &Path) -> Loaded {
    let weights = Weights::open(dir).expect("a supported case opens");
    let model = CausalLm::new(weights.config(), &weights).expect("a supported case loads");
    Loaded { model, expected: Expected::read(dir) }
}

impl Loaded {
    fn logits(&self, rows: &[Vec<u32>], mask: &AttnMask) -> Tensor {
        let hidden = self.model.hidden(rows, mask).expect("a forward pass");
        self.model.logits(&hidden).expect("logits")
    }
}

fn causal(rows: &[Vec<u32>]) -> AttnMask {
    AttnMask::causal(rows.len(), rows[0].len())
}

#[test]
fn logits_agree() {
    for (name, dir) in cases() {
        let loaded = load(&dir);
        for part in ["main", "one"] {
            let Some(rows) = loaded.expected.rows(&format!("{part}.input_ids")) else {
                assert!(part == "one" && name.starts_with("f-"), "{name} has no {part}");
                continue;
            };
            let expected = loaded.expected.tensor(&format!("{part}.logits")).expect("logits");
            let error = relative_error(&flat(&loaded.logits(&rows, &causal(&rows))), &flat(&expected));
            assert!(error < 1e-4, "{name} {part}: {error:e}");
        }
    }
}

#[test]
fn logits_of_full_and_longer_sequences_agree() {
    for (name, dir) in cases() {
        let loaded = load(&dir);
        for part in ["full", "long"] {
            let Some(rows) = loaded.expected.rows(&format!("{part}.input_ids")) else {
                assert!(part == "full" || name.starts_with("f-"), "{name} has no {part}");
                continue;
            };
            let expected = loaded.expected.tensor(&format!("{part}.logits_last8")).expect("logits");
            let logits = loaded.logits(&rows, &causal(&rows));
            let last = logits.narrow(1, rows[0].len() - 8, 8).expect("8 positions");
            let error = relative_error(&flat(&last), &flat(&expected));
            assert!(error < 1e-4, "{name} {part}: {error:e}");
        }
    }
}

#[test]
fn logits_of_padded_batches_agree() {
    for (name, dir) in cases() {
        let loaded = load(&dir);
        let rows = loaded.expected.rows("pad.input_ids").expect("every case has padded rows");
        let mask = loaded.expected.rows("pad.attention_mask").expect("a mask").concat();
        let bits: Vec<u8> = mask.iter().map(|&bit| bit as u8).collect();
        let attn_mask = AttnMask::padded(&bits, rows.len(), rows[0].len()).expect("left padding");
        let logits = flat(&loaded.logits(&rows, &attn_mask));
        let expected = flat(&loaded.expected.tensor("pad.logits").expect("logits"));
        let vocab = loaded.model.config().vocab_size;
        let real = |values: &[f32]| {
            let tokens = values.chunks_exact(vocab).zip(&bits).filter(|&(_, &bit)| bit == 1);
            tokens.flat_map(|(logits, _)| logits.to_vec()).collect::<Vec<f32>>()
        };
        let error = relative_error(&real(&logits), &real(&expected));
        assert!(error < 1e-4, "{name}: {error:e}");
    }
}

#[test]
fn hidden_states_agree() {
    for (name, dir) in cases() {
        let loaded = load(&dir);
        let rows = loaded.expected.rows("main.input_ids").expect("ids");
        let mask = causal(&rows);
        // the reference has the first row only, fewer tensors in the `f-` cases, none of these in golden ones
        let agrees = |place: &str, found: &Tensor| {
            let Some(expected) = loaded.expected.tensor(&format!("main.{place}")) else {
                let is_kept = place.ends_with(".out") && dir != golden(name);
                assert!(name.starts_with("f-") && !is_kept, "{name} has no {place}");
                return;
            };
            let found = found.narrow(0, 0, rows[0].len()).expect("the first row");
            let error = relative_error(&flat(&found), &flat(&expected));
            assert!(error < 1e-4, "{name} {place}: {error:e}");
        };
        let model = &loaded.model;
        let positions: Vec<u32> = (0..rows.len()).flat_map(|_| 0..rows[0].len() as u32).collect();
        let mut x = model.embedding().forward(&rows.concat(), &positions).expect("embeddings");
        agrees("embed", &x);
        for layer in 0..model.blocks().num_blocks() {
            let run = &mut |block: &Block| {
                let (normed, attended) = block.attention_branch(&x, KeyValues::Uncached(&mask))?;
                agrees(&format!("block{layer}.norm_1"), &normed);
                agrees(&format!("block{layer}.attn"), &attended);
                x = block.forward(&x, KeyValues::Uncached(&mask))?;
                Ok(())
            };
            model.blocks().with_block(layer, run).expect("a block");
            agrees(&format!("block{layer}.out"), &x);
        }
        agrees("norm_f", &model.norm_f().forward(&x).expect("the last norm"));
    }
}

#[test]
fn losses_and_gradients_agree() {
    for (name, dir) in cases() {
        let expected = Expected::read(&dir);
        let params = Params::load(&Weights::open(&dir).expect("weights"), &Device::Cpu).expect("parameters");
        let config = MptConfig::from_file(&dir.join("config.json")).expect("a configuration");
        let model = CausalLm::new(&config, &params).expect("a model");
        let rows = expected.rows("main.input_ids").expect("ids");
        let labels: Vec<u32> =
            expected.rows("main.labels").expect("labels").iter().flat_map(|row| shifted(row)).collect();
        let (found, gradients) = mean_loss_and_gradients(&model, &rows, &labels, Gradients::default());
        let expected_loss = flat(&expected.tensor("main.loss").expect("a loss"))[0];
        assert!(
            (found - expected_loss).abs() < 1e-5 * expected_loss,
            "{name}: loss {found}, expected {expected_loss}"
        );
        if name.starts_with("lora") {
            continue; // its gradients are those of the adapter
        }
        for parameter in expected.names("main.grad.") {
            let gradient = gradients.get(&parameter).expect("a gradient");
            let expected = expected.tensor(&format!("main.grad.{parameter}")).expect("a gradient");
            let error = relative_error(&flat(gradient), &flat(&expected));
            assert!(error < 1e-3, "{name} {parameter}: {error:e}");
        }
    }
}

/// Mean loss over the labels that are not ignored, and its gradients.
fn mean_loss_and_gradients(
    model: &CausalLm,
    rows: &[Vec<u32>],
    labels: &[u32],
    mut gradients: Gradients,
) -> (f32, Gradients) {
    let kept = labels.iter().filter(|&&label| label != mpt_core::IGNORE_LABEL).count() as f64;
    let mask = causal(rows);
    let batch = TrainBatch { tokens: rows, mask: &mask, labels, dropout: None };
    let loss = model.loss_and_gradients(&batch, Recompute::None, &mut gradients).expect("a training pass");
    for (_, gradient) in gradients.iter() {
        mpt_core::ops::scale(gradient, 1.0 / kept).expect("a mean");
    }
    ((loss / kept) as f32, gradients)
}

/// Labels shifted left: position t has the label of t + 1, the last is ignored.
pub(crate) fn shifted(labels: &[u32]) -> Vec<u32> {
    labels[1..].iter().copied().chain([mpt_core::IGNORE_LABEL]).collect()
}

#[test]
fn packed_documents_agree() {
    for dir in both("f-sequence-id") {
        let loaded = load(&dir);
        let rows = loaded.expected.rows("main.input_ids").expect("ids");
        let documents = loaded.expected.rows("main.sequence_id").expect("sequence ids").concat();
        let mask = AttnMask::documents(&documents, rows.len(), rows[0].len()).expect("contiguous documents");
        let expected = loaded.expected.tensor("main.logits").expect("logits");
        let error = relative_error(&flat(&loaded.logits(&rows, &mask)), &flat(&expected));
        assert!(error < 1e-4, "{}: {error:e}", dir.display());
    }
}

#[test]
fn a_lora_adapter_agrees() {
    expect_adapter(&golden("clip"), &golden("lora"));
    if let Some(dir) = case("lora") {
        expect_adapter(&dir, &dir.join("adapter"));
    }
}

/// Logits, loss and gradients of the adapter, and logits of the merged model.
fn expect_adapter(base: &Path, adapter: &Path) {
    let (weights, expected) = (Weights::open(base).expect("weights"), Expected::read(adapter));
    let adapter = Adapter::open(adapter, weights.config()).expect("an adapter");
    let source = WithAdapter { base: &weights, adapter: &adapter };
    let model = CausalLm::new(weights.config(), &source).expect("a model");
    let rows = expected.rows("main.input_ids").expect("ids");
    let labels: Vec<u32> =
        expected.rows("main.labels").expect("labels").iter().flat_map(|row| shifted(row)).collect();
    let hidden = model.hidden(&rows, &causal(&rows)).expect("a forward pass");
    let logits = flat(&model.logits(&hidden).expect("logits"));
    for part in ["main", "merged"] {
        let expected = expected.tensor(&format!("{part}.logits")).expect("logits");
        let error = relative_error(&logits, &flat(&expected));
        assert!(error < 1e-4, "{part}: {error:e}");
    }
    let wanted = Gradients::for_params(adapter.params().map(|(id, _)| id));
    let (loss, gradients) = mean_loss_and_gradients(&model, &rows, &labels, wanted);
    let expected_loss = flat(&expected.tensor("main.loss").expect("a loss"))[0];
    assert!((loss - expected_loss).abs() < 1e-5 * expected_loss);
    assert_eq!(adapter.vars().count(), expected.names("main.grad.").len());
    assert_eq!(adapter.vars().count(), gradients.iter().count());
    for (id, _) in adapter.params() {
        let name = id.to_string();
        let expected = expected.tensor(&format!("main.grad.base_model.model.{name}")).expect("a gradient");
        let error = relative_error(&flat(gradients.get(&name).expect("a gradient")), &flat(&expected));
        assert!(error < 1e-3, "{name}: {error:e}");
    }
}

/// bf16 weights with f32 activations against the reference in bf16 throughout, whose rounding moves logits by up to 0.2 on a
/// spread of about 3.
#[test]
fn a_bf16_checkpoint_is_near_the_reference_in_bf16() {
    let Some(dir) = case("bf16") else { return };
    let loaded = load(&dir);
    let rows = loaded.expected.rows("main.input_ids").expect("ids");
    let expected = flat(&loaded.expected.tensor("main.logits_bf16").expect("logits"));
    let logits = flat(&loaded.logits(&rows, &causal(&rows)));
    assert_eq!(logits.len(), expected.len());
    let worst = largest(logits.iter().zip(&expected).map(|(a, b)| a - b));
    assert!(worst < 0.25, "{worst}");
}

/// Weights converted to 16 bits at load equal a checkpoint stored in 16 bits.
#[test]
fn rounding_at_load_is_rounding_the_file() {
    let dir = golden("alibi");
    let weights = Weights::open(&dir).expect("weights");
    let exact = CausalLm::new(weights.config(), &weights).expect("a model");
    let rounded = weights.clone().with_dtype(WeightDtype::BF16);
    assert_eq!(rounded.tensor("transformer.wte.weight", None).expect("a tensor").dtype(), WeightDtype::BF16);
    let rounded = CausalLm::new(weights.config(), &rounded).expect("a model");
    let rows = Expected::read(&dir).rows("main.input_ids").expect("ids");
    let logits = |model: &CausalLm| {
        flat(&model.logits(&model.hidden(&rows, &causal(&rows)).expect("hidden")).expect("logits"))
    };
    let error = relative_error(&logits(&rounded), &logits(&exact));
    assert!(error > 1e-5 && error < 2e-2, "{error:e}");
}
