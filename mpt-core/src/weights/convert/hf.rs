//! Writing a folder of safetensors that transformers reads.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::rows::copy;
use super::{ConvertOptions, Converted, OnBytes, report};
use crate::config::MptConfig;
use crate::error::{Error, Result};
use crate::weights::format::Format;
use crate::weights::open::{TensorInfo, Weights};
use crate::weights::write::header;

/// Writes the weights of `weights` to the folder `dir`, which exists, as `model.safetensors` or as shards with an index.
/// `on_bytes` hears of the bytes written. `config.json` is not written: [`config_json`] has its text.
///
/// # Errors
/// [`Error::Unsupported`] for a quantized form, and those of the files.
pub fn write_hf(
    weights: &Weights,
    dir: &Path,
    options: &ConvertOptions<'_>,
    on_bytes: OnBytes<'_>,
) -> Result<Converted> {
    let format = options.format_for(weights.matrix_format());
    if format.is_quantized() {
        return Err(Error::Unsupported {
            path: dir.to_owned(),
            field: "dtype",
            actual: format.to_string(),
            instead: "a folder holds f32, f16 or bf16; quantized forms go into GGUF",
        });
    }
    let shards = shards(weights, format, options.max_shard_size.unwrap_or(u64::MAX));
    let names: Vec<String> = (1..=shards.len()).map(|number| file_name(number, shards.len())).collect();
    let mut converted = Converted { files: Vec::new(), format, bytes: 0 };
    for (shard, name) in shards.iter().zip(&names) {
        let path = dir.join(name);
        converted.bytes += write_shard(weights, &path, shard, format, options, on_bytes)?;
        converted.files.push(path);
    }
    if shards.len() > 1 {
        write_index(dir, &shards, &names, converted.bytes)?;
    }
    Ok(converted)
}

/// The `config.json` of converted weights: `config`, with the keys of `original` that belong to other programs and none
/// that lead to remote code.
pub fn config_json(config: &MptConfig, format: Format, original: Option<&Map<String, Value>>) -> String {
    let Value::Object(mut out) = Value::from(config.clone()) else {
        unreachable!("a configuration is an object")
    };
    out.insert("torch_dtype".to_owned(), json!(torch_name(format)));
    for (key, value) in original.into_iter().flatten() {
        let ours = out.contains_key(key) || MptConfig::knows_key(key);
        if !ours && key != "auto_map" && key != "dtype" {
            out.insert(key.clone(), value.clone());
        }
    }
    serde_json::to_string_pretty(&out).expect("a JSON value can be printed") + "\n"
}

fn torch_name(format: Format) -> &'static str {
    match format {
        Format::F16 => "float16",
        Format::BF16 => "bfloat16",
        _ => "float32",
    }
}

fn file_name(number: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{number:05}-of-{count:05}.safetensors"),
    }
}

/// The model's tensors in the order of names, a file's worth at a time.
fn shards(weights: &Weights, format: Format, limit: u64) -> Vec<Vec<TensorInfo>> {
    let expected = weights.config().parameter_shapes();
    let tensors = weights.tensors().into_iter().filter(|tensor| expected.contains_key(&tensor.name));
    let (mut shards, mut size) = (vec![Vec::new()], 0);
    for tensor in tensors {
        let bytes = num_bytes(&tensor, format);
        if size > 0 && size + bytes > limit {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        shards.last_mut().expect("there is one").push(tensor);
    }
    shards
}

fn num_bytes(tensor: &TensorInfo, format: Format) -> u64 {
    tensor.shape.iter().product::<usize>() as u64 * format.block_bytes() as u64
}

fn write_shard(
    weights: &Weights,
    path: &Path,
    shard: &[TensorInfo],
    format: Format,
    options: &ConvertOptions<'_>,
    on_bytes: OnBytes<'_>,
) -> Result<u64> {
    let file = File::create(path).map_err(Error::io(path, "creating"))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let entries = shard.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice()));
    let header = header(entries, format);
    let start = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    out.write_all(&start).map_err(Error::io(path, "writing"))?;
    let mut total = 0;
    for tensor in shard {
        let layer = tensor.name.strip_suffix(".weight");
        let lora = options.adapter.zip(layer).and_then(|(adapter, layer)| adapter.layer(layer));
        let bytes =
            copy(weights, &tensor.name, format, lora.as_ref(), &mut out).map_err(|error| error.at(path))?;
        report(on_bytes, bytes)?;
        total += bytes;
    }
    out.flush().map_err(Error::io(path, "writing"))?;
    Ok(total)
}

fn write_index(dir: &Path, shards: &[Vec<TensorInfo>], names: &[String], total: u64) -> Result<PathBuf> {
    let mut map = Map::new();
    for (shard, file) in shards.iter().zip(names) {
        map.extend(shard.iter().map(|tensor| (tensor.name.clone(), json!(file))));
    }
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    let path = dir.join("model.safetensors.index.json");
    let text = serde_json::to_string_pretty(&index).expect("a JSON value can be printed") + "\n";
    std::fs::write(&path, text).map_err(Error::io(&path, "writing"))?;
    Ok(path)
}
