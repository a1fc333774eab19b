//! Generation against a plain loop without a cache, and against the reference's greedy texts.

mod pipeline;
#[path = "../../../mpt-core/tests/it/shared.rs"]
mod shared;
mod verify;

use std::ops::ControlFlow;
use std::path::Path;

use candle_core::Device;
use mpt_core::testing::tiny_model;
use mpt_core::{AttnMask, CausalLm, KvDtype, Weights};
use mpt_infer::{FinishReason, GenerateParams, Generation, SamplingParams, generate};

use crate::shared::{golden, shared};

fn model() -> CausalLm {
    let (config, params) = tiny_model(4);
    CausalLm::new(&config, &params).unwrap()
}

fn run(model: &CausalLm, prompt: &[u32], params: &GenerateParams) -> Generation {
    generate(model, prompt, params, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn greedy(max_new_tokens: usize) -> GenerateParams {
    GenerateParams { max_new_tokens, ..GenerateParams::default() }
}

/// Every token from the whole text before it, nothing kept.
fn plain(model: &CausalLm, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    for _ in 0..count {
        let hidden = model.hidden(&[&ids], &AttnMask::causal(1, ids.len())).unwrap();
        let last = hidden.narrow(1, ids.len() - 1, 1).unwrap();
        let logits = model
            .logits(&last.contiguous().unwrap())
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        ids.push(best as u32);
    }
    ids.split_off(prompt.len())
}

#[test]
fn the_cache_changes_no_token() {
    let model = model();
    let prompt: Vec<u32> = (0..30).map(|i| i * 7 % 50).collect();
    assert_eq!(run(&model, &prompt, &greedy(40)).ids, plain(&model, &prompt, 40));
}

#[test]
fn a_cache_that_rounds_gives_a_text_too() {
    let model = model();
    for kv_dtype in [KvDtype::Bf16, KvDtype::Int8] {
        let params = GenerateParams { kv_dtype, ..greedy(300) }; // beyond the first capacity of a cache
        let generation = run(&model, &[1, 2, 3], &params);
        assert_eq!(generation.ids.len(), 300, "{kv_dtype}");
        assert_eq!(generation.ids, run(&model, &[1, 2, 3], &params).ids, "{kv_dtype}");
    }
}

#[test]
fn long_prompts_and_full_caches_change_no_token() {
    let model = model();
    let prompt: Vec<u32> = (0..1100).map(|i| i * i % 50).collect();
    assert_eq!(run(&model, &prompt, &greedy(5)).ids, plain(&model, &prompt, 5));
    let long = run(&model, &[3], &greedy(600)).ids;
    assert_eq!(long[590..], plain(&model, &[&[3], &long[..590]].concat(), 10));
}

#[test]
fn texts_end_where_they_should() {
    let model = model();
    let free = run(&model, &[1, 2], &greedy(12));
    assert_eq!((free.ids.len(), free.finish_reason), (12, FinishReason::Length));
    let stop = GenerateParams { stop_ids: vec![free.ids[5]], ..greedy(12) };
    let stopped = run(&model, &[1, 2], &stop);
    let first = free.ids.iter().position(|id| *id == free.ids[5]).unwrap();
    assert_eq!((&stopped.ids[..], stopped.finish_reason), (&free.ids[..first], FinishReason::Stop));
    let short = GenerateParams { max_seq_len: Some(6), ..greedy(12) };
    assert_eq!(run(&model, &[1, 2], &short).ids, free.ids[..4]);
    let error =
        generate(&model, &[1; 9], &short, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("the prompt has 9 tokens, and 5 fit"), "{error}");
    assert!(generate(&model, &[], &short, &mut |_| ControlFlow::Continue(())).is_err());
    let broken = generate(&model, &[1, 2], &greedy(12), &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((broken.ids.len(), broken.finish_reason), (1, FinishReason::Callback));
}

#[test]
fn seeds_decide_sampled_texts_and_padding_is_never_drawn() {
    let model = model();
    let sample = |seed| {
        let sampling = SamplingParams { temperature: 5.0, seed, ..SamplingParams::default() };
        run(&model, &[1], &GenerateParams { sampling, num_ids: Some(30), ..greedy(50) }).ids
    };
    assert_eq!(sample(1), sample(1));
    assert_ne!(sample(1), sample(2));
    assert!(sample(1).iter().all(|&id| id < 30));
}

#[test]
fn greedy_texts_are_those_of_the_reference() {
    for case in ["alibi", "three-heads", "clip", "f-qk-ln", "f-gqa", "f-rmsnorm-glu"] {
        expect_greedy_text(&golden(case));
    }
    let Some(root) = shared("fixtures/mpt-tiny") else { return };
    for case in [
        "pow2-heads",
        "nonpow2-heads",
        "head-dim-112",
        "clip-qkv-8",
        "softmax-scale",
        "untied",
        "f-alibi-max",
        "f-qk-ln",
        "f-learned-pos",
        "f-gqa",
    ] {
        expect_greedy_text(&root.join(case));
    }
}

fn expect_greedy_text(case: &Path) {
    let weights = Weights::open(case).unwrap();
    let model = CausalLm::new(weights.config(), &weights).unwrap();
    let expected = candle_core::safetensors::load(case.join("expected.safetensors"), &Device::Cpu).unwrap();
    let ids = |name: &str| -> Vec<u32> {
        let values = expected[name].flatten_all().unwrap().to_vec1::<i64>().unwrap();
        values.into_iter().map(|id| id as u32).collect()
    };
    let wanted = ids("greedy.new_tokens");
    let found = run(&model, &ids("greedy.input_ids"), &greedy(wanted.len()));
    assert_eq!(found.ids, wanted, "{}", case.display());
}
