//! Files and folders mistaken for a model, and common accidents: each is recognized and named.

use mpt_core::weights::GgufWriter;
use mpt_core::{MptConfig, WeightDtype};

use crate::sound::{self, Tensor};
use crate::trial::{Folder, assert_names};

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 13298\n";
const MODEL: &str = "model.safetensors";

fn tensors() -> Vec<Tensor> {
    sound::tensors(&sound::config())
}

fn with_config(config: &MptConfig, tensors: &[Tensor]) -> Folder {
    Folder::new().with("config.json", config.to_json()).with(MODEL, sound::safetensors(tensors))
}

#[test]
fn pointers_of_git_lfs_say_what_to_run() {
    let said = ["Git LFS pointer", "git lfs pull"];
    Folder::model().with(MODEL, POINTER).refused(&[MODEL, said[0], said[1]]);
    Folder::model().with("pytorch_model.bin", POINTER).refused(&["pytorch_model.bin", said[0], said[1]]);
    Folder::model().with("model.safetensors.index.json", POINTER).refused(&["index.json", said[0], said[1]]);
    Folder::model().with("config.json", POINTER).refused(&["config.json", said[0], said[1]]);
    let file = Folder::new().with("m.gguf", POINTER);
    assert_names(file.open_file("m.gguf"), &["m.gguf", said[0], said[1]]);
}

#[test]
fn a_tied_head_must_be_the_embedding() {
    let embedding = tensors().into_iter().find(|(name, ..)| name == "transformer.wte.weight").expect("there");
    let head = |bytes: Vec<u8>| ("lm_head.weight".to_owned(), embedding.1.clone(), bytes);
    let with_head = |head: Tensor| [tensors(), vec![head]].concat();
    with_config(&sound::config(), &with_head(head(embedding.2.clone()))).open().expect("the same matrix");
    let mut other = embedding.2.clone();
    *other.last_mut().expect("a byte") ^= 1;
    let differs = with_config(&sound::config(), &with_head(head(other)));
    differs.refused(&["lm_head.weight", "differs", "`tie_word_embeddings` to false"]);
    let short = ("lm_head.weight".to_owned(), vec![1, 8], embedding.2[..32].to_vec());
    with_config(&sound::config(), &with_head(short)).refused(&["lm_head.weight", "differs"]);
}

#[test]
fn an_untied_model_without_a_head_is_told_the_key() {
    let tied = "\"tie_word_embeddings\": true";
    let text = sound::config().to_json();
    assert!(text.contains(tied), "{text}");
    let text = text.replace(tied, "\"tie_word_embeddings\": false");
    let folder = Folder::new().with("config.json", text).with(MODEL, sound::safetensors(&tensors()));
    folder.refused(&["lm_head.weight", "`tie_word_embeddings` to true"]);
}

#[test]
fn what_wrappers_put_before_names_is_seen_through() {
    let renamed = |name: fn(&str) -> String| -> Vec<Tensor> {
        tensors().into_iter().map(|(old, shape, bytes)| (name(&old), shape, bytes)).collect()
    };
    let ways: [fn(&str) -> String; 6] = [
        |name| format!("_orig_mod.{name}"),
        |name| format!("module.{name}"),
        |name| format!("model.{name}"),
        |name| format!("module._orig_mod.{name}"),
        |name| name.replace("transformer.", ""),
        |name| name.replace("transformer.", "model."),
    ];
    for way in ways {
        with_config(&sound::config(), &renamed(way)).open().expect("a model under a wrapper");
    }
    let odd = renamed(|name| format!("odd.{name}"));
    with_config(&sound::config(), &odd).refused(&["transformer.", "missing"]);
}

#[test]
fn what_trainers_nest_is_found() {
    let nested = sound::nested_bin(&tensors());
    Folder::model().with("pytorch_model.bin", nested).open().expect("a trainer's checkpoint");
}

#[test]
fn an_index_that_names_a_tensor_its_file_lacks_says_which() {
    let config = sound::config();
    let all = sound::index(&tensors(), "a.safetensors").to_string();
    let few: Vec<Tensor> =
        tensors().into_iter().filter(|(name, ..)| name != "transformer.norm_f.weight").collect();
    let folder = Folder::new().with("config.json", config.to_json());
    let folder =
        folder.with("a.safetensors", sound::safetensors(&few)).with("model.safetensors.index.json", all);
    folder.refused(&[
        "a.safetensors: ",
        "`transformer.norm_f.weight`",
        "the index says",
        "fetch the model again",
    ]);
    folder.with("model.safetensors", sound::safetensors(&few)).refused(&[
        "model.safetensors: ",
        "`transformer.norm_f.weight`",
        "before an index",
    ]);
}

#[test]
fn parts_and_byte_orders_of_gguf_are_named() {
    let part = |count: u32| {
        let mut out = GgufWriter::default();
        out.text("general.architecture", "mpt");
        out.int("split.no", 1);
        out.int("split.count", count);
        let mut bytes = Vec::new();
        out.write_header(&mut bytes).expect("memory");
        Folder::new().with("m.gguf", bytes).open_file("m.gguf")
    };
    assert_names(part(3), &["part 2 of a file split in 3", "llama-gguf-split --merge"]);
    assert_names(part(1), &["token_embd.weight"]);
    let mut big = sound::gguf(WeightDtype::F32);
    big[4..8].reverse();
    assert_names(Folder::new().with("m.gguf", big).open_file("m.gguf"), &["a big-endian GGUF file"]);
}

#[test]
fn configurations_that_are_no_json_are_named_by_what_they_have() {
    let refused = |text: &str, parts: &[&str]| {
        Folder::new().with("config.json", text).with(MODEL, sound::safetensors(&tensors())).refused(parts);
    };
    refused("\u{feff}{}", &["config.json", "byte-order mark"]);
    for number in ["NaN", "Infinity", "-Infinity"] {
        let name = number.trim_start_matches('-');
        refused(&format!("{{\n  \"x\": {number}\n}}"), &["line 2", name, "null"]);
        refused(&format!("{{\"x\":{number}}}"), &["line 1", name, "null"]);
        refused(&format!("{{\"x\": [1, {number}]}}"), &["line 1", name, "null"]);
    }
    refused("{\"x\": \"NaN\", }", &["config.json", "line 1 column"]);
}

#[test]
fn other_things_than_models_are_named() {
    let folder = Folder::model().with(MODEL, sound::safetensors(&tensors()));
    assert_names(folder.open_file(MODEL), &["a weights file", "name the folder"]);
    Folder::new().with("adapter_config.json", "{}").refused(&["a LoRA adapter", "name its base model"]);
    Folder::new().with("manifest.json", "{}").refused(&["a data folder", "name a model"]);
    let hub = mpt_core::Weights::open("mosaicml/mpt-7b".as_ref()).expect_err("not here").to_string();
    assert!(
        hub.contains("mosaicml/mpt-7b: this is nothing on this machine") && hub.contains("download that"),
        "{hub}"
    );
}
