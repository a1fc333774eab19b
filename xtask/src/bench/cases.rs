//! Comparisons: the arguments of `mpt`, the peer's script, and the metrics of both.

use std::path::Path;

/// Suite of comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Suite {
    /// Training steps
    Train,
    /// Reading a prompt and generating
    Infer,
    /// A large matrix product, and reading memory
    Gemm,
    /// Encoding text
    Tokenize,
}

/// Comparison.
#[derive(Debug)]
pub(crate) struct Case {
    /// Name.
    pub(crate) name: String,
    /// Suite it belongs to.
    pub(crate) suite: Suite,
    /// Input files, in the working folder.
    pub(crate) files: Vec<String>,
    /// Arguments of `mpt`, without `--json` and `--threads`.
    pub(crate) ours: Vec<String>,
    /// The script in `xtask/peers` with its arguments, without `--threads`.
    pub(crate) peer: Vec<String>,
    /// Python packages that the script imports.
    pub(crate) packages: &'static [&'static str],
    /// Metrics: their title, and their key in both JSON documents.
    pub(crate) metrics: &'static [(&'static str, &'static str)],
}

const SPEEDS: &[(&str, &str)] =
    &[("prompt, tokens/s", "prefill_tokens_per_s"), ("generation, tokens/s", "decode_tokens_per_s")];

/// Models, by the name of their preset.
pub(crate) const MODELS: [&str; 2] = ["mpt-125m", "mpt-1b"];

/// Quantized dtypes.
pub(crate) const DTYPES: [&str; 2] = ["q8_0", "q4_k"];

/// File name of a quantized model.
pub(crate) fn quantized(model: &str, dtype: &str) -> String {
    format!("{model}-{dtype}.gguf")
}

/// All comparisons, with their files in `dir`.
pub(crate) fn all(dir: &Path) -> Vec<Case> {
    let path_of = |file: &str| dir.join(file).display().to_string();
    let mut cases = vec![gemm(&path_of)];
    for precision in ["f32", "bf16"] {
        cases.extend([(512, 4), (2048, 1)].map(|(seq, batch)| train(&path_of, precision, seq, batch)));
    }
    for model in MODELS {
        cases.push(against_torch(&path_of, model));
        cases.extend(DTYPES.map(|dtype| against_llama_cpp(&path_of, model, dtype)));
    }
    cases.push(encode(&path_of));
    cases
}

fn split_args(text: &str) -> Vec<String> {
    text.split(' ').map(ToOwned::to_owned).collect()
}

fn gemm(path_of: &dyn Fn(&str) -> String) -> Case {
    let config = path_of("mpt-125m/config.json");
    Case {
        name: "machine: f32 product of 2048, reading 1 GiB".to_owned(),
        suite: Suite::Gemm,
        files: vec!["mpt-125m/config.json".to_owned()],
        ours: [split_args("bench infer --prompt 8 --gen 1 --reps 1 --config"), vec![config]].concat(),
        peer: split_args("machine.py"),
        packages: &["torch"],
        metrics: &[("operations/s", "machine_flops_per_s"), ("bytes/s", "machine_read_bytes_per_s")],
    }
}

fn train(path_of: &dyn Fn(&str) -> String, precision: &str, seq: u32, batch: u32) -> Case {
    let config = path_of("mpt-125m/config.json");
    let shape = format!("--precision {precision} --seq-len {seq} --batch {batch} --steps 3 --config");
    Case {
        name: format!("train mpt-125m {precision} {seq}x{batch} adamw"),
        suite: Suite::Train,
        files: vec!["mpt-125m/config.json".to_owned()],
        ours: [split_args("bench train --optimizer adamw"), split_args(&shape), vec![config.clone()]]
            .concat(),
        peer: [split_args("train.py"), split_args(&shape), vec![config]].concat(),
        packages: &["torch", "transformers"],
        metrics: &[("tokens/s", "tokens_per_s")],
    }
}

fn against_torch(path_of: &dyn Fn(&str) -> String, model: &str) -> Case {
    let ours = split_args("bench infer --dtype bf16 --prompt 512 --gen 64 --reps 3 --model");
    Case {
        name: format!("infer {model} bf16, torch"),
        suite: Suite::Infer,
        files: vec![model.to_owned()],
        ours: [ours, vec![path_of(model)]].concat(),
        peer: [split_args("infer.py --prompt 512 --gen 64 --reps 3 --model"), vec![path_of(model)]].concat(),
        packages: &["torch", "transformers"],
        metrics: SPEEDS,
    }
}

fn against_llama_cpp(path_of: &dyn Fn(&str) -> String, model: &str, dtype: &str) -> Case {
    let file = quantized(model, dtype);
    let shape = split_args("--prompt 512 --gen 64 --reps 3 --model");
    Case {
        name: format!("infer {model} {dtype}, llama.cpp"),
        suite: Suite::Infer,
        files: vec![file.clone()],
        ours: [split_args("bench infer"), shape.clone(), vec![path_of(&file)]].concat(),
        peer: [split_args("llamacpp.py"), shape, vec![path_of(&file)]].concat(),
        packages: &["llama_cpp", "numpy"],
        metrics: SPEEDS,
    }
}

fn encode(path_of: &dyn Fn(&str) -> String) -> Case {
    let files = vec![path_of("tokenizer.json"), path_of("text.txt")];
    Case {
        name: "encode text.txt".to_owned(),
        suite: Suite::Tokenize,
        files: vec!["tokenizer.json".to_owned(), "text.txt".to_owned()],
        ours: [split_args("bench tokenizer --tokenizer"), files.clone()].concat(),
        peer: [split_args("encode.py --tokenizer"), files].concat(),
        packages: &["tokenizers"],
        metrics: &[("encode, MB/s", "mb_per_s"), ("decode on one thread, MB/s", "decode_mb_per_s")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_there_and_every_name_its_own() {
        let scripts = crate::workspace::root().join("xtask/peers");
        let mut cases = all(Path::new("dir"));
        assert!(cases.iter().all(|case| scripts.join(&case.peer[0]).is_file()), "{cases:?}");
        let count = cases.len();
        cases.dedup_by(|a, b| a.name == b.name);
        assert_eq!(cases.len(), count);
    }
}
