//! Read a GGUF file and write it as a folder that transformers loads.
//!
//! ```text
//! cargo run -p mpt-core --example gguf_to_safetensors [MODEL.gguf OUT]
//! ```
//!
//! Without arguments a small random model is written as GGUF and read back.

#![expect(clippy::print_stdout, reason = "an example speaks to people")]

use std::error::Error;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mpt_core::{
    ConvertOptions, ConvertedModel, MptConfig, WeightDtype, Weights, config_json, write_gguf, write_hf,
    write_random_init,
};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (gguf, out) = match (arguments.next(), arguments.next()) {
        (Some(gguf), Some(out)) => (gguf, out),
        _ => (random_gguf(dir.path())?, dir.path().join("converted")),
    };

    // Matrices keep their dtype, quantized ones become bf16; names and layout become those of a folder.
    let weights = Weights::open(&gguf)?;
    fs::create_dir_all(&out)?;
    let converted = write_hf(&weights, &out, &ConvertOptions::default(), &mut |_| ControlFlow::Continue(()))?;
    save_config(&out, weights.config(), &converted)?;

    let again = Weights::open(&out)?;
    println!("{}: {} tensors of {}", out.display(), again.tensors().len(), converted.dtype);
    assert_eq!(again.config().num_parameters(), weights.config().num_parameters());
    Ok(())
}

/// A GGUF file of a model with random weights.
fn random_gguf(dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let (folder, gguf) = (dir.join("random"), dir.join("random.gguf"));
    fs::create_dir(&folder)?;
    let config = MptConfig::mpt(64, 2, 4, 512, 128)?;
    let options = ConvertOptions::default();
    let converted = write_random_init(&config, 7, &folder, &options, &mut |_| ControlFlow::Continue(()))?;
    save_config(&folder, &config, &converted)?;
    let options = ConvertOptions { dtype: Some(WeightDtype::F16), ..options };
    write_gguf(&Weights::open(&folder)?, &gguf, "random", &options, &mut |_| (), &mut |_| {
        ControlFlow::Continue(())
    })?;
    Ok(gguf)
}

fn save_config(dir: &Path, config: &MptConfig, converted: &ConvertedModel) -> io::Result<()> {
    fs::write(dir.join("config.json"), config_json(config, converted, None))
}
