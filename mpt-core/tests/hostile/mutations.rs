//! Valid files with random edits of bytes and JSON: no panic, hang or excessive memory.

use candle_core::Device;
use mpt_core::{CausalLm, MptConfig, Params, WeightDtype};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::sound::{self, Tensor};
use crate::trial::{Folder, run};

/// Edit of bytes.
#[derive(Clone, Debug)]
enum Edit {
    Flip(Offset, u8),
    Put(Offset, u64, usize),
    Insert(Offset, Vec<u8>),
    Remove(Offset, usize),
    Copy(Offset, Offset, usize),
    Cut(Offset),
}

/// Offset near the start, near the end or anywhere.
#[derive(Clone, Debug)]
enum Offset {
    Head(Index),
    Tail(Index),
    Anywhere(Index),
}

impl Offset {
    fn of(&self, len: usize) -> usize {
        let near = len.clamp(1, 1200);
        match self {
            Self::Head(index) => index.index(near),
            Self::Tail(index) => len.saturating_sub(1 + index.index(near)),
            Self::Anywhere(index) => index.index(len + 1),
        }
    }
}

fn offset() -> impl Strategy<Value = Offset> {
    let index = any::<Index>;
    prop_oneof![
        3 => index().prop_map(Offset::Head),
        2 => index().prop_map(Offset::Tail),
        1 => index().prop_map(Offset::Anywhere),
    ]
}

/// Numbers near overflow boundaries.
fn number() -> impl Strategy<Value = u64> {
    let edge = prop::sample::select(vec![0u64, 1, 7, 8, 15, 16, 31, 32, 47, 53, 62, 63, 64]);
    let near = (edge, 0..3u64)
        .prop_map(|(bits, by)| 1u64.checked_shl(bits as u32).unwrap_or(0).wrapping_add(by).wrapping_sub(1));
    prop_oneof![near, 0..300u64, any::<u64>()]
}

fn edit() -> impl Strategy<Value = Edit> {
    let width = prop::sample::select(vec![1usize, 2, 4, 8]);
    prop_oneof![
        4 => (offset(), 0..8u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        4 => (offset(), number(), width).prop_map(|(at, value, width)| Edit::Put(at, value, width)),
        1 => (offset(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        1 => (offset(), 1..40usize).prop_map(|(at, len)| Edit::Remove(at, len)),
        2 => (offset(), offset(), 1..200usize).prop_map(|(from, to, len)| Edit::Copy(from, to, len)),
        1 => offset().prop_map(Edit::Cut),
    ]
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec(edit(), 1..5)
}

fn edited(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let len = bytes.len();
        let span = |at: &Offset, n: usize| {
            let at = at.of(len).min(len);
            at..(at + n).min(len)
        };
        match edit {
            Edit::Flip(at, bit) => bytes[span(at, 1)].iter_mut().for_each(|byte| *byte ^= 1 << bit),
            Edit::Put(at, value, width) => {
                let span = span(at, *width);
                let value = &value.to_le_bytes()[..span.len()];
                bytes[span].copy_from_slice(value);
            }
            Edit::Insert(at, new) => drop(bytes.splice(span(at, 0), new.iter().copied())),
            Edit::Remove(at, n) => drop(bytes.drain(span(at, *n))),
            Edit::Copy(from, to, n) => {
                let copied = bytes[span(from, *n)].to_vec();
                bytes.splice(span(to, 0), copied);
            }
            Edit::Cut(at) => bytes.truncate(at.of(len)),
        }
    }
    bytes
}

/// Edit of a JSON value at an index over all nested values.
#[derive(Clone, Debug)]
struct JsonEdit {
    at: Index,
    to: Change,
}

#[derive(Clone, Debug)]
enum Change {
    Replace(Value),
    Remove,
    Rename(String),
    Add(String, Value),
    CopyOf(Index),
}

/// Keys of MPT configurations and adapters.
const KEYS: [&str; 36] = [
    "alibi",
    "alibi_bias_max",
    "alpha_pattern",
    "architectures",
    "attention_bias",
    "attn_config",
    "attn_type",
    "attn_logit_softcapping",
    "clip_qkv",
    "d_model",
    "expansion_ratio",
    "ffn_act_fn",
    "ffn_config",
    "ffn_hidden_size",
    "ffn_type",
    "final_logit_softcapping",
    "head_dim",
    "kv_n_heads",
    "learned_pos_emb",
    "logit_scale",
    "lora_alpha",
    "max_seq_len",
    "n_heads",
    "n_layers",
    "no_bias",
    "norm_eps",
    "norm_type",
    "qk_ln",
    "qk_gn",
    "r",
    "rope",
    "rope_impl",
    "rope_hf_config",
    "sliding_window_size",
    "softmax_scale",
    "vocab_size",
];

fn value() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        "x",
        "hf",
        "dail",
        "rmsnorm",
        "mptglu",
        "relu",
        "grouped_query_attention",
        "multiquery_attention",
        "MPTForCausalLM",
        "inv_sqrt_d_model",
        "F16",
        "I64",
        "\u{0}",
        "../a.safetensors",
        "linear",
        "dynamic",
        "llama3",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number().prop_map(Value::from),
        (0..9u64).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec![0.0, -0.0, 0.5, -1.0, 1e-320, 1e-30, 1e30, 1e300, f64::MAX])
            .prop_map(Value::from),
        prop::sample::select(texts.to_vec()).prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!({ "type": "dynamic", "factor": 1e300 })),
        Just(json!({ "type": "llama3", "factor": 1e-300, "original_max_position_embeddings": 1e-300 })),
        Just(json!({ "name": "silu" })),
        Just(json!("n".repeat(70_000))),
        Just((0..130).fold(json!(0), |inner, _| json!([inner]))),
        prop::collection::vec(number(), 0..12).prop_map(Value::from),
    ]
}

fn json_edit() -> impl Strategy<Value = JsonEdit> {
    let key = || prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned);
    let change = prop_oneof![
        4 => value().prop_map(Change::Replace),
        1 => Just(Change::Remove),
        1 => key().prop_map(Change::Rename),
        4 => (key(), value()).prop_map(|(key, value)| Change::Add(key, value)),
        1 => any::<Index>().prop_map(Change::CopyOf),
    ];
    (any::<Index>(), change).prop_map(|(at, to)| JsonEdit { at, to })
}

fn json_edits() -> impl Strategy<Value = Vec<JsonEdit>> {
    prop::collection::vec(json_edit(), 1..6)
}

fn edited_json(mut value: Value, edits: &[JsonEdit]) -> Value {
    for JsonEdit { at, to } in edits {
        let pointers = json_pointers(&value, String::new());
        let pointer = &pointers[at.index(pointers.len())];
        let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
        let key = key.replace("~1", "/").replace("~0", "~");
        match to {
            Change::Replace(new) => *at_mut(&mut value, pointer) = new.clone(),
            Change::CopyOf(from) => {
                let copied = value.pointer(&pointers[from.index(pointers.len())]).cloned();
                *at_mut(&mut value, pointer) = copied.unwrap_or_default();
            }
            Change::Add(key, new) => {
                if let Value::Object(map) = at_mut(&mut value, pointer) {
                    map.insert(key.clone(), new.clone());
                }
            }
            Change::Remove | Change::Rename(_) => {
                let Value::Object(map) = at_mut(&mut value, parent) else { continue };
                let old = map.remove(&key).unwrap_or_default();
                if let Change::Rename(name) = to {
                    map.insert(name.clone(), old);
                }
            }
        }
    }
    value
}

fn at_mut<'a>(value: &'a mut Value, pointer: &str) -> &'a mut Value {
    value.pointer_mut(pointer).expect("a listed pointer")
}

/// JSON pointers of a value and all nested values.
fn json_pointers(value: &Value, here: String) -> Vec<String> {
    let inner: Vec<String> = match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| {
                let key = key.replace('~', "~0").replace('/', "~1");
                json_pointers(value, format!("{here}/{key}"))
            })
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .flat_map(|(i, value)| json_pointers(value, format!("{here}/{i}")))
            .collect(),
        _ => Vec::new(),
    };
    std::iter::once(here).chain(inner).collect()
}

fn tensors() -> Vec<Tensor> {
    sound::tensors(&sound::config())
}

/// `usual` cases, or the number in `PROPTEST_CASES`.
fn cases(usual: u32) -> ProptestConfig {
    let default = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        default
    } else {
        ProptestConfig { cases: usual, ..default }
    }
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn of_safetensors(edits in edits()) {
        let bytes = edited(sound::safetensors(&tensors()), &edits);
        let _ = Folder::model().with("model.safetensors", bytes).open();
    }

    #[test]
    fn of_safetensors_headers(edits in json_edits()) {
        let header = edited_json(sound::header(&tensors()), &edits).to_string();
        let bytes = sound::framed(&header, &sound::data(&tensors()));
        let _ = Folder::model().with("model.safetensors", bytes).open();
    }

    #[test]
    fn of_bins(edits in edits()) {
        let bytes = edited(sound::bin(&tensors()), &edits);
        let _ = Folder::model().with("pytorch_model.bin", bytes).open();
    }

    #[test]
    fn of_pickles(edits in edits()) {
        let view = sound::View { storage: "FloatStorage", key: "0", len: 4, offset: 0, shape: &[2, 2], stride: &[2, 1] };
        let pickle = edited(sound::Pickle::dict().text("a").tensor(view).end(), &edits);
        let _ = Folder::model().with("pytorch_model.bin", sound::archive(&pickle, &[&[0; 16]])).open();
    }

    #[test]
    fn of_ggufs(edits in edits(), quantized in any::<bool>()) {
        let bytes = edited(sound::gguf(if quantized { WeightDtype::Q8_0 } else { WeightDtype::F32 }), &edits);
        let _ = Folder::new().with("model.gguf", bytes).open_file("model.gguf");
    }

    #[test]
    fn of_configurations(edits in json_edits(), bytes in edits()) {
        let sound = serde_json::from_str(&sound::config().to_json()).expect("JSON");
        let text = edited_json(sound, &edits).to_string();
        let folder = Folder::new().with("model.safetensors", sound::safetensors(&tensors()));
        let folder = folder.with("config.json", &text);
        let _ = folder.open();
        let _ = folder.with("config.json", edited(text.into_bytes(), &bytes)).open();
    }

    /// A small model of any accepted configuration runs.
    #[test]
    fn of_configurations_give_models_that_run(edits in json_edits()) {
        let sound = serde_json::from_str(&sound::config().to_json()).expect("JSON");
        let text = edited_json(sound, &edits).to_string();
        let Ok(config) = MptConfig::from_json(&text, "config.json".as_ref()) else { return Ok(()) };
        if config.num_parameters() < 100_000
            && let Ok(params) = Params::init(&config, 1, &Device::Cpu)
        {
            let _ = CausalLm::new(&config, &params).and_then(|model| run(&model));
        }
    }

    #[test]
    fn of_indexes(edits in json_edits(), bytes in edits()) {
        let text = edited_json(sound::index(&tensors(), "a.safetensors"), &edits).to_string();
        let folder = Folder::model().with("a.safetensors", sound::safetensors(&tensors()));
        let folder = folder.with("model.safetensors.index.json", &text);
        let _ = folder.open();
        let _ = folder.with("model.safetensors.index.json", edited(text.into_bytes(), &bytes)).open();
    }

    #[test]
    fn of_adapters(config in json_edits(), bytes in edits(), bin in any::<bool>()) {
        let text = edited_json(sound::adapter_config(), &config).to_string();
        let (name, sound) = match bin {
            true => ("adapter_model.bin", sound::bin(&sound::adapter_tensors())),
            false => ("adapter_model.safetensors", sound::safetensors(&sound::adapter_tensors())),
        };
        let folder = Folder::new().with("adapter_config.json", text).with(name, &sound);
        let _ = folder.open_adapter();
        let folder = folder.with("adapter_config.json", sound::adapter_config().to_string());
        let _ = folder.with(name, edited(sound, &bytes)).open_adapter();
    }
}
