//! Open a model and let it write.
//!
//! ```text
//! cargo run --release -p mpt-infer --example generate [MODEL PROMPT]
//! ```
//!
//! MODEL is a folder, a GGUF file, or a run folder of a training. Without arguments a small model with random weights
//! continues a few ids: it has no tokenizer, so no text either.

#![expect(clippy::print_stdout, reason = "an example speaks to people")]

use std::error::Error;
use std::io::{Write, stdout};
use std::ops::ControlFlow;
use std::path::Path;

use mpt_core::{ConvertOptions, MptConfig, config_json, write_random_init};
use mpt_infer::{CompletionParams, Pipeline, SamplingParams};

fn main() -> Result<(), Box<dyn Error>> {
    let sampling = SamplingParams { temperature: 0.8, seed: 7, ..SamplingParams::default() };
    let params = CompletionParams { max_new_tokens: 64, sampling, ..CompletionParams::default() };

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, prompt] = &arguments[..] else {
        let dir = tempfile::tempdir()?;
        draw(dir.path())?;
        let completion = Pipeline::open(dir.path())?.generate_ids(&[5, 6, 7], &params)?;
        println!("{:?}", completion.ids);
        return Ok(());
    };

    // Pieces come as they are drawn, in whole characters; breaking ends the text.
    let completion = Pipeline::open(model)?.stream(prompt, &params, &mut |piece| {
        print!("{piece}");
        match stdout().flush() {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    println!(
        "\n({:?} after {} tokens)",
        completion.generation.finish_reason,
        completion.generation.ids.len()
    );
    Ok(())
}

/// Writes a model with random weights to a folder.
fn draw(dir: &Path) -> Result<(), Box<dyn Error>> {
    let config = MptConfig::mpt(64, 2, 4, 512, 128)?;
    let options = ConvertOptions::default();
    let converted = write_random_init(&config, 7, dir, &options, &mut |_| ControlFlow::Continue(()))?;
    std::fs::write(dir.join("config.json"), config_json(&config, &converted, None))?;
    Ok(())
}
