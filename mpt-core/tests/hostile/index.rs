//! Indexes with invalid file names, and paths that are not regular files.

use std::time::Instant;

use serde_json::{Value, json};

use crate::sound::{self, Tensor};
use crate::trial::Folder;

const INDEX: &str = "model.safetensors.index.json";

fn tensors() -> Vec<Tensor> {
    sound::tensors(&sound::config())
}

fn with(index: impl AsRef<[u8]>) -> Folder {
    Folder::model().with("a.safetensors", sound::safetensors(&tensors())).with(INDEX, index)
}

fn naming(file: &str) -> Folder {
    with(sound::index(&tensors(), file).to_string())
}

#[test]
fn the_sound_index_is_read() {
    naming("a.safetensors").open().expect("a sound model");
    naming("./a.safetensors").refused(&[INDEX, "`./a.safetensors`"]);
}

#[test]
fn names_outside_the_folder_or_of_another_kind_are_refused() {
    let long = "a".repeat(10_000) + ".safetensors";
    for file in [
        "../a.safetensors",
        "x/../a.safetensors",
        "/etc/a.safetensors",
        "/",
        ".",
        "..",
        "",
        INDEX,
        "config.json",
        "a.bin",
        &long,
    ] {
        naming(file).refused(&[INDEX, "names of weights files of one kind inside the folder"]);
    }
    naming("missing.safetensors").refused(&[INDEX, "`missing.safetensors` is not there, of 1 that it names"]);
    naming("a\0.safetensors").refused(&["is not there"]);
}

#[test]
fn a_bin_index_names_bins_alone() {
    let index = "pytorch_model.bin.index.json";
    let folder = |file: &str| {
        let bin = sound::bin(&tensors());
        Folder::model().with("a.bin", bin).with(index, sound::index(&tensors(), file).to_string())
    };
    folder("a.bin").open().expect("a sound model");
    folder("a.safetensors").refused(&[index, "a.safetensors"]);
}

#[test]
fn indexes_of_another_form_are_refused() {
    for text in ["", "{}", "[]", r#"{"weight_map": []}"#, r#"{"weight_map": {"a": 1}}"#, "\u{0}"] {
        with(text).refused(&[INDEX, "line 1"]);
    }
    with(b"\xff\xfe").refused(&[INDEX, "UTF-8"]);
    with(format!(r#"{{"x": {}"#, "[".repeat(1 << 20))).refused(&[INDEX, "line 1"]);
    with(r#"{"weight_map": {}}"#).refused(&["missing"]);
}

#[test]
fn many_and_large_entries_cost_little() {
    let names = |n: usize, file: &dyn Fn(usize) -> String| -> Value {
        json!({ "weight_map": (0..n).map(|i| (i.to_string(), json!(file(i)))).collect::<serde_json::Map<_, _>>() })
    };
    with(names(5000, &|i| format!("{i}.safetensors")).to_string()).refused(&[INDEX, "more than 1000 files"]);
    with(names(300_000, &|_| "a.safetensors".to_owned()).to_string()).open().expect("one file");
    with(" ".repeat((16 << 20) + 1)).refused(&[INDEX, "at most 16 MiB"]);
}

#[test]
fn tensors_are_counted_over_all_files() {
    let mut index = json!({ "weight_map": {} });
    let mut folder = Folder::model();
    for file in ["a.safetensors", "b.safetensors"] {
        let entry = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
        let entries: Vec<String> = (0..40_000).map(|i| format!(r#""{file}.{i}":{entry}"#)).collect();
        folder = folder.with(file, sound::framed(&format!("{{{}}}", entries.join(",")), &[]));
        index["weight_map"][file] = json!(file);
    }
    folder.with(INDEX, index.to_string()).refused(&["b.safetensors", "80000 tensors"]);
}

#[test]
fn folders_in_place_of_files_are_refused() {
    let folder = naming("b.safetensors");
    std::fs::create_dir(folder.path("b.safetensors")).unwrap();
    folder.refused(&["b.safetensors", "a folder, a pipe or a device"]);
    let folder = Folder::new();
    std::fs::create_dir(folder.path("config.json")).unwrap();
    folder.refused(&["config.json", "a folder, a pipe or a device"]);
}

#[test]
#[cfg(unix)]
fn links_are_followed_and_devices_refused() {
    let folder = naming("b.safetensors");
    std::os::unix::fs::symlink("a.safetensors", folder.path("b.safetensors")).unwrap();
    folder.open().expect("a link, as the hub's cache has them");
    for (device, start) in [("/dev/zero", Instant::now()), ("/dev/stdin", Instant::now())] {
        let folder = naming("c.safetensors");
        std::os::unix::fs::symlink(device, folder.path("c.safetensors")).unwrap();
        assert!(folder.open().is_err() && start.elapsed().as_secs() < 5, "{device}");
    }
    let folder = Folder::model();
    std::fs::remove_file(folder.path("config.json")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path("config.json")).unwrap();
    folder.refused(&["config.json", "a folder, a pipe or a device"]);
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let mut index = sound::index(&tensors(), "a.safetensors");
    index["weight_map"]["other"] = json!("b.safetensors");
    with(index.to_string())
        .with("b.safetensors", sound::safetensors(&tensors()))
        .refused(&["b.safetensors", "stands in two files"]);
}
