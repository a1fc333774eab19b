//! Bodies of the fuzz targets: the input becomes a file of a model, which is opened and used.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use candle_core::Device;
use mpt_core::{Adapter, AttnMask, CausalLm, MptConfig, Result, Weights};
use tempfile::TempDir;

/// Valid files, shared with the tests.
#[path = "../../tests/hostile/sound.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
pub(crate) mod sound;

/// Folder of the process; every input overwrites its files.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

/// Valid configuration and weights for the other files.
static SOUND: LazyLock<(String, Vec<u8>)> = LazyLock::new(|| {
    let config = sound::config();
    (config.to_json(), sound::safetensors(&sound::tensors(&config)))
});

/// Opens a model whose weights file `name` holds `data`.
pub fn weights(name: &str, data: &[u8]) {
    put("config.json", SOUND.0.as_bytes());
    put(name, data);
    let _ = used(FOLDER.path());
}

/// Opens the GGUF file of `data`.
pub fn gguf(data: &[u8]) {
    let _ = used(&put("model.gguf", data));
}

/// Opens sound weights under the configuration `data`.
pub fn config(data: &[u8]) {
    put("model.safetensors", &SOUND.1);
    put("config.json", data);
    let _ = used(FOLDER.path());
}

/// Opens sound weights behind the index `data`.
pub fn index(data: &[u8]) {
    put("config.json", SOUND.0.as_bytes());
    put("a.safetensors", &SOUND.1);
    put("model.safetensors.index.json", data);
    let _ = used(FOLDER.path());
}

/// Opens an adapter: its configuration, a zero byte, its weights.
pub fn adapter(data: &[u8]) {
    static MODEL: LazyLock<MptConfig> = LazyLock::new(sound::config);
    let split = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    put("adapter_config.json", &data[..split]);
    put("adapter_model.safetensors", data.get(split + 1..).unwrap_or_default());
    let _ = Adapter::open(FOLDER.path(), &MODEL);
}

fn put(name: &str, data: &[u8]) -> PathBuf {
    let path = FOLDER.path().join(name);
    let _ = std::fs::remove_file(&path); // a mapped file must not shrink
    std::fs::write(&path, data).expect("room for a file");
    path
}

/// Opens a model, reads every tensor and runs two tokens.
fn used(path: &Path) -> Result<()> {
    let weights = Weights::open(path)?;
    for tensor in weights.tensors() {
        if let Ok(stored) = weights.tensor(&tensor.name, None) {
            stored.to_tensor(&Device::Cpu)?;
        }
    }
    let model = CausalLm::new(weights.config(), &weights)?;
    let last = model.config().vocab_size as u32 - 1;
    let hidden = model.hidden(&[[0, last]], &AttnMask::causal(1, 2))?;
    model.logits(&hidden).map(drop)
}
