//! Seeds of the fuzz targets: valid files, written to the corpora of `mpt-core/fuzz`.

use std::path::Path;

use mpt_core::WeightDtype;

use crate::sound;

#[test]
#[ignore = "a step of `cargo xtask fuzz`"]
fn are_written() {
    let config = sound::config();
    let tensors = sound::tensors(&config);
    let weights = sound::safetensors(&sound::adapter_tensors());
    let adapter = [sound::adapter_config().to_string().as_bytes(), &[0], &weights].concat();
    for (target, name, bytes) in [
        ("adapter", "lora", adapter),
        ("config", "config", config.to_json().into_bytes()),
        ("gguf", "f32", sound::gguf(WeightDtype::F32)),
        ("gguf", "q8_0", sound::gguf(WeightDtype::Q8_0)),
        ("index", "index", sound::index(&tensors, "a.safetensors").to_string().into_bytes()),
        ("pickle", "bin", sound::bin(&tensors)),
        ("safetensors", "f32", sound::safetensors(&tensors)),
    ] {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&corpus).expect("a folder for the corpus");
        std::fs::write(corpus.join(name), bytes).expect("room for a small file");
    }
}
