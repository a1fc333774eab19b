//! Writing a folder of safetensors that transformers reads.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::rows::{CopyError, copy};
use super::{ConvertOptions, Converted, OnBytes, report};
use crate::config::MptConfig;
use crate::error::{Error, Result};
use crate::init::initial_values;
use crate::kernels::cpu::narrow::narrow;
use crate::weights::format::Format;
use crate::weights::open::Weights;
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
    let limit = options.max_shard_size.unwrap_or(u64::MAX);
    write_folder(weights.config(), dir, format, limit, on_bytes, &mut |tensor, out| {
        let lora = options.adapter.zip(tensor.strip_suffix(".weight"));
        let lora = lora.and_then(|(adapter, layer)| adapter.layer(layer));
        copy(weights, tensor, format, lora.as_ref(), out)
    })
}

/// Draws the parameters of a new model by its configuration's scheme and writes them to the folder `dir`, which exists, in
/// a plain form: the values of [`Params::init`](crate::Params::init), one tensor in memory at a time.
///
/// # Errors
/// As [`write_hf`], and [`Error::Config`] when the scheme lacks a number.
pub fn write_drawn(
    config: &MptConfig,
    seed: u64,
    dir: &Path,
    options: &ConvertOptions<'_>,
    on_bytes: OnBytes<'_>,
) -> Result<Converted> {
    let format = options.format.unwrap_or(Format::F32);
    let shapes = config.parameter_shapes();
    let limit = options.max_shard_size.unwrap_or(u64::MAX);
    write_folder(config, dir, format, limit, on_bytes, &mut |tensor, out| {
        let values = initial_values(config, seed, tensor, &shapes[tensor])?;
        let mut written = 0;
        for values in values.chunks(1 << 20) {
            let bytes = narrow(format, values);
            out.write_all(&bytes).map_err(CopyError::Output)?;
            written += bytes.len() as u64;
        }
        Ok(written)
    })
}

/// Writes one tensor's values and returns their number of bytes.
type Fill<'a> = &'a mut dyn FnMut(&str, &mut dyn Write) -> Result<u64, CopyError>;

fn write_folder(
    config: &MptConfig,
    dir: &Path,
    format: Format,
    limit: u64,
    on_bytes: OnBytes<'_>,
    fill: Fill<'_>,
) -> Result<Converted> {
    if format.is_quantized() {
        return Err(Error::Unsupported {
            path: dir.to_owned(),
            field: "dtype",
            actual: format.to_string(),
            instead: "a folder holds f32, f16 or bf16; quantized forms go into GGUF",
        });
    }
    let shards = shards(config, format, limit);
    let names: Vec<String> = (1..=shards.len()).map(|number| file_name(number, shards.len())).collect();
    let mut converted = Converted { files: Vec::new(), format, bytes: 0 };
    for (shard, name) in shards.iter().zip(&names) {
        let path = dir.join(name);
        converted.bytes += write_shard(&path, shard, format, on_bytes, fill)?;
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

/// Name and shape of a tensor.
type Named = (String, Vec<usize>);

/// The model's tensors in the order of names, a file's worth at a time.
fn shards(config: &MptConfig, format: Format, limit: u64) -> Vec<Vec<Named>> {
    let (mut shards, mut size) = (vec![Vec::new()], 0);
    for (name, shape) in config.parameter_shapes() {
        let bytes = shape.iter().product::<usize>() as u64 * format.block_bytes() as u64;
        if size > 0 && size + bytes > limit {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        shards.last_mut().expect("there is one").push((name, shape));
    }
    shards
}

fn write_shard(
    path: &Path,
    shard: &[Named],
    format: Format,
    on_bytes: OnBytes<'_>,
    fill: Fill<'_>,
) -> Result<u64> {
    let file = File::create(path).map_err(Error::io(path, "creating"))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let header = header(shard.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())), format);
    let start = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    out.write_all(&start).map_err(Error::io(path, "writing"))?;
    let mut total = 0;
    for (name, _) in shard {
        let bytes = fill(name, &mut out).map_err(|error| error.at(path))?;
        report(on_bytes, bytes)?;
        total += bytes;
    }
    out.flush().map_err(Error::io(path, "writing"))?;
    Ok(total)
}

fn write_index(dir: &Path, shards: &[Vec<Named>], names: &[String], total: u64) -> Result<()> {
    let mut map = Map::new();
    for (shard, file) in shards.iter().zip(names) {
        map.extend(shard.iter().map(|(name, _)| (name.clone(), json!(file))));
    }
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    let path = dir.join("model.safetensors.index.json");
    let text = serde_json::to_string_pretty(&index).expect("a JSON value can be printed") + "\n";
    std::fs::write(&path, text).map_err(Error::io(&path, "writing"))
}
