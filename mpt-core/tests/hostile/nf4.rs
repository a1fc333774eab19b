//! NF4 folders with inconsistent parts.

use std::ops::ControlFlow;

use mpt_core::{ConvertOptions, MptConfig, Params, WeightDtype, Weights, config_json, write_hf};
use serde_json::{Map, Value, json};

use crate::sound;
use crate::trial::Folder;

const FILE: &str = "model.safetensors";
const LINEAR: &str = "transformer.blocks.0.attn.out_proj.weight";
const STATE: &str = "transformer.blocks.0.attn.out_proj.weight.quant_state.bitsandbytes__nf4";

/// Tensors of a file: name, header entry, data.
type Tensors = Vec<(String, Value, Vec<u8>)>;

/// Configuration and weights file of a valid NF4 model of width 64.
fn sound_files() -> (String, Vec<u8>) {
    let config = MptConfig::mpt(64, 1, 2, 4, 4).expect("possible sizes");
    let (dir, out) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let params = Params::init(&config, 1, &candle_core::Device::Cpu).expect("a small model");
    std::fs::write(dir.path().join("config.json"), config.to_json()).expect("room");
    params.save(&dir.path().join(FILE)).expect("room");
    let weights = Weights::open(dir.path()).expect("a sound model");
    let options = ConvertOptions { dtype: Some(WeightDtype::Nf4), ..ConvertOptions::default() };
    let go_on = &mut |_| ControlFlow::Continue(());
    let converted = write_hf(&weights, out.path(), &options, go_on).expect("finite values");
    let file = std::fs::read(out.path().join(FILE)).expect("readable");
    (config_json(&config, &converted, None), file)
}

fn tensors(file: &[u8]) -> Tensors {
    let len = u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&file[8..8 + len]).expect("JSON");
    let data = &file[8 + len..];
    let at = |entry: &Value, i: usize| entry["data_offsets"][i].as_u64().expect("an offset") as usize;
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    tensors.map(|(name, entry)| (name, entry.clone(), data[at(&entry, 0)..at(&entry, 1)].to_vec())).collect()
}

fn file(tensors: &Tensors) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, entry, bytes) in tensors {
        let offsets = json!([data.len(), data.len() + bytes.len()]);
        let entry = json!({ "dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": offsets });
        header.insert(name.clone(), entry);
        data.extend(bytes);
    }
    sound::framed(&Value::Object(header).to_string(), &data)
}

/// Valid folder with its tensors changed.
fn with(change: impl FnOnce(&mut Tensors)) -> Folder {
    let (config, bytes) = sound_files();
    let mut tensors = tensors(&bytes);
    change(&mut tensors);
    Folder::new().with("config.json", config).with(FILE, file(&tensors))
}

/// Valid folder with other bytes, of the same dtype, in the tensor `name`.
fn with_bytes(name: &str, bytes: Vec<u8>) -> Folder {
    with(|tensors| {
        let tensor = tensors.iter_mut().find(|tensor| tensor.0 == name).expect("it is there");
        let width = if tensor.1["dtype"] == "F32" { 4 } else { 1 };
        tensor.1["shape"] = json!([bytes.len() / width]);
        tensor.2 = bytes;
    })
}

/// Valid folder with one quantization state changed.
fn with_state(key: &str, value: Value) -> Folder {
    let (_, bytes) = sound_files();
    let state = tensors(&bytes).into_iter().find(|tensor| tensor.0 == STATE).expect("a state").2;
    let mut state: Value = serde_json::from_slice(&state).expect("JSON");
    state[key] = value;
    with_bytes(STATE, state.to_string().into_bytes())
}

#[test]
fn the_sound_folder_is_read() {
    with(|_| ()).open().expect("a sound folder");
}

#[test]
fn missing_parts_are_named() {
    for part in ["", ".absmax", ".nested_absmax", ".nested_quant_map", ".quant_map"] {
        let name = format!("{LINEAR}{part}");
        with(|tensors| tensors.retain(|tensor| tensor.0 != name)).refused(&[&name, "missing"]);
    }
    with(|tensors| tensors.retain(|tensor| tensor.0 != STATE)).refused(&[LINEAR]);
}

#[test]
fn states_that_do_not_fit_are_refused() {
    for shape in
        [json!([64, 65]), json!([4_294_967_296u64, 4_294_967_296u64]), json!([u64::MAX, 64]), json!([64, 0])]
    {
        with_state("shape", shape).refused(&[FILE, LINEAR]);
    }
    with_state("shape", json!([128, 32])).refused(&[FILE, STATE, "whole blocks"]);
    with_state("shape", json!([32, 128])).refused(&[FILE, LINEAR, "[32, 128]", "[64, 64]"]);
    with_state("shape", json!([4096])).refused(&[FILE, STATE]);
    with_state("blocksize", json!(128)).refused(&[FILE, "blocksize", "128", "quantize the original"]);
    with_state("quant_type", json!("fp4\u{1b}[2J")).refused(&[FILE, STATE, r"\u{1b}"]);
    with_state("nested_blocksize", json!(0)).refused(&[FILE, STATE, "groups of 256"]);
    with_state("nested_offset", Value::Null).refused(&[FILE, STATE, "groups of 256"]);
    with_state("nested_offset", json!(1e300)).refused(&[FILE, STATE]);
    for bytes in [&b""[..], b"{", b"[]", b"\xff", &[b'['; 4000], &[b' '; 5000]] {
        with_bytes(STATE, bytes.to_vec()).refused(&[FILE, STATE]);
    }
}

#[test]
fn parts_of_other_sizes_are_refused() {
    for (part, bytes) in
        [(".absmax", 63), (".nested_absmax", 8), (".nested_quant_map", 255 * 4), (".quant_map", 64)]
    {
        let name = format!("{LINEAR}{part}");
        with_bytes(&name, vec![0; bytes]).refused(&[FILE, &name]);
    }
    with_bytes(LINEAR, vec![0; 2047]).refused(&[FILE, LINEAR, "2048"]);
    with(|tensors| {
        let tensor = tensors.iter_mut().find(|tensor| tensor.0 == LINEAR).expect("codes");
        (tensor.1["dtype"], tensor.1["shape"]) = (json!("BF16"), json!([1024]));
    })
    .refused(&[FILE, LINEAR, "BF16"]);
}

#[test]
fn the_other_form_of_bitsandbytes_is_refused_by_name() {
    with(|tensors| {
        let tensor = tensors.iter_mut().find(|tensor| tensor.0 == STATE).expect("a state");
        tensor.0 = STATE.replace("nf4", "fp4");
    })
    .refused(&["bnb_4bit_quant_type", "fp4", LINEAR]);
}

#[test]
fn scales_of_any_bits_are_read() {
    for part in [".nested_absmax", ".nested_quant_map"] {
        let len = if part == ".nested_absmax" { 1 } else { 256 };
        with_bytes(&format!("{LINEAR}{part}"), f32::NAN.to_le_bytes().repeat(len))
            .open()
            .expect("numbers of a kind");
    }
}

#[test]
fn changed_bytes_are_read_or_refused() {
    let (config, sound) = sound_files();
    let open = |bytes: &[u8]| Folder::new().with("config.json", &config).with(FILE, bytes).open();
    for i in 0..300usize {
        let mut bytes = sound.clone();
        let at = i * 7919 % sound.len().min(if i % 2 == 0 { 4000 } else { usize::MAX });
        bytes[at] ^= 1 << (i % 8);
        let _ = open(&bytes); // bounds are checked inside
    }
}

#[test]
fn the_folder_of_another_program_may_have_its_parts_in_two_files() {
    let (config, bytes) = sound_files();
    let (first, second): (Tensors, Tensors) =
        tensors(&bytes).into_iter().partition(|tensor| tensor.0.contains("quant_map"));
    let map: Map<String, Value> = [(&first, "a.safetensors"), (&second, "b.safetensors")]
        .into_iter()
        .flat_map(|(tensors, file)| tensors.iter().map(move |tensor| (tensor.0.clone(), json!(file))))
        .collect();
    let index = json!({ "weight_map": map }).to_string();
    let folder = Folder::new()
        .with("config.json", config)
        .with("a.safetensors", file(&first))
        .with("b.safetensors", file(&second))
        .with("model.safetensors.index.json", index);
    folder.open().expect("a sound folder");
}
