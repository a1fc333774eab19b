//! Read a GGUF file and write it as a folder that transformers loads.
//!
//! ```text
//! cargo run -p mpt-core --example gguf_to_safetensors [MODEL.gguf OUT]
//! ```
//!
//! Without arguments a small model is drawn, written as GGUF, and read back.

#![expect(clippy::print_stdout, reason = "an example speaks to people")]

use std::error::Error;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mpt_core::{
    ConvertOptions, Converted, MptConfig, WeightDtype, Weights, config_json, write_drawn, write_gguf,
    write_hf,
};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (gguf, out) = match (arguments.next(), arguments.next()) {
        (Some(gguf), Some(out)) => (gguf, out),
        _ => (drawn(dir.path())?, dir.path().join("converted")),
    };

    // Matrices keep the form they have, quantized ones become bf16; names, order and layout become those of a folder.
    let weights = Weights::open(&gguf)?;
    fs::create_dir_all(&out)?;
    let converted = write_hf(&weights, &out, &ConvertOptions::default(), &mut |_| ControlFlow::Continue(()))?;
    save_config(&out, weights.config(), &converted)?;

    let again = Weights::open(&out)?;
    println!("{}: {} tensors of {}", out.display(), again.tensors().len(), converted.format);
    assert_eq!(again.config().num_parameters(), weights.config().num_parameters());
    Ok(())
}

/// A GGUF file of a model with random weights.
fn drawn(dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let (folder, gguf) = (dir.join("drawn"), dir.join("drawn.gguf"));
    fs::create_dir(&folder)?;
    let config = MptConfig::mpt(64, 2, 4, 512, 128)?;
    let options = ConvertOptions::default();
    let converted = write_drawn(&config, 7, &folder, &options, &mut |_| ControlFlow::Continue(()))?;
    save_config(&folder, &config, &converted)?;
    let options = ConvertOptions { format: Some(WeightDtype::F16), ..options };
    write_gguf(&Weights::open(&folder)?, &gguf, "drawn", &options, &mut |_| (), &mut |_| {
        ControlFlow::Continue(())
    })?;
    Ok(gguf)
}

fn save_config(dir: &Path, config: &MptConfig, converted: &Converted) -> io::Result<()> {
    fs::write(dir.join("config.json"), config_json(config, converted, None))
}
