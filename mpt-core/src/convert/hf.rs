//! Writing a folder of safetensors that transformers reads.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::rows::{CopyError, copy, copy_nf4};
use super::{ConvertOptions, Converted, OnBytes, Written, nf4, plain, report};
use crate::config::MptConfig;
use crate::dtype::WeightDtype;
use crate::dtype_policy::target_dtype;
use crate::error::{Error, Result};
use crate::init::initial_values;
use crate::kernels::cpu::quantize::{QuantizeError, convert_float};
use crate::loading::refused;
use crate::memory::expect_memory;
use crate::params::ParamId;
use crate::weights::Weights;
use crate::weights::write::{Entry, header};

/// Writes the weights of `weights` to the folder `dir`, which exists, as `model.safetensors` or as shards with an index.
/// `on_bytes` hears of the bytes written. `config.json` is not written: [`config_json`] has its text.
///
/// # Errors
/// [`Error::Unsupported`] for a quantized form other than NF4, and those of the files.
pub fn write_hf(
    weights: &Weights,
    dir: &Path,
    options: &ConvertOptions<'_>,
    on_bytes: OnBytes<'_>,
) -> Result<Converted> {
    let source = weights.matrix_format();
    let format = options.format_for(source);
    let other = if format == WeightDtype::Nf4 { plain(source) } else { format };
    let folder = Folder { config: weights.config(), dir, format, other, limit: options.max_shard_size };
    folder.write(on_bytes, &mut |tensor, out| {
        let lora = options.lora(&tensor.name);
        match tensor.format {
            WeightDtype::Nf4 => copy_nf4(weights, &tensor.name, other, lora.as_ref(), out),
            format => copy(weights, &tensor.name, format, lora.as_ref(), out),
        }
    })
}

/// Values of a new model that are rounded at once.
const CHUNK_VALUES: usize = 1 << 20;

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
    let format = options.format.unwrap_or(WeightDtype::F32);
    if format == WeightDtype::Nf4 {
        return Err(unsupported(dir, format, "draw it in f32, f16 or bf16, and quantize that"));
    }
    let folder = Folder { config, dir, format, other: format, limit: options.max_shard_size };
    folder.write(on_bytes, &mut |tensor, out| {
        let bytes =
            tensor.shape.iter().fold(size_of::<f32>() as u64, |bytes, &n| bytes.saturating_mul(n as u64));
        expect_memory(bytes)?;
        let values = initial_values(config, seed, tensor.id, &tensor.shape)?;
        for (chunk, values) in values.chunks(CHUNK_VALUES).enumerate() {
            let from = chunk * CHUNK_VALUES;
            let refused = |refusal: QuantizeError| refused(dir, &tensor.name, format, refusal.after(from));
            let bytes = convert_float(format, values).map_err(refused)?;
            out.write_all(&bytes).map_err(CopyError::Output)?;
        }
        let (name, shape, bytes) = (tensor.name.clone(), tensor.shape.clone(), tensor.bytes());
        Ok(Written { name, format, shape, bytes, squares: 0.0, squared_error: 0.0 })
    })
}

fn unsupported(dir: &Path, format: WeightDtype, instead: &'static str) -> Error {
    Error::Unsupported { path: dir.to_owned(), field: "dtype", actual: format.to_string(), instead }
}

/// A tensor to write.
struct Tensor {
    id: ParamId,
    name: String,
    shape: Vec<usize>,
    format: WeightDtype,
}

impl Tensor {
    /// What a header says of it: more than one entry where files keep it in parts.
    fn entries(&self) -> Vec<Entry<'_>> {
        match self.format {
            WeightDtype::Nf4 => nf4::entries(&self.name, &self.shape).collect(),
            format => vec![Entry::plain(&self.name, &self.shape, format)],
        }
    }

    fn bytes(&self) -> u64 {
        self.entries().iter().map(|entry| entry.bytes as u64).sum()
    }
}

/// Writes one tensor's values.
type Fill<'a> = &'a mut dyn FnMut(&Tensor, &mut dyn Write) -> Result<Written, CopyError>;

/// A folder in the making.
struct Folder<'a> {
    config: &'a MptConfig,
    dir: &'a Path,
    format: WeightDtype,
    other: WeightDtype,
    limit: Option<u64>,
}

impl Folder<'_> {
    fn write(&self, on_bytes: OnBytes<'_>, fill: Fill<'_>) -> Result<Converted> {
        let Self { dir, format, other, .. } = *self;
        if format.is_quantized() && format != WeightDtype::Nf4 {
            let instead = "a folder holds f32, f16, bf16 or nf4; other quantized forms go into GGUF";
            return Err(unsupported(dir, format, instead));
        }
        let shards = self.shards();
        let names: Vec<String> = (1..=shards.len()).map(|number| file_name(number, shards.len())).collect();
        let mut converted = Converted { files: Vec::new(), format, other, bytes: 0, tensors: Vec::new() };
        for (shard, name) in shards.iter().zip(&names) {
            let path = dir.join(name);
            let written = write_shard(&path, shard, on_bytes, fill)?;
            converted.bytes += written.iter().map(|tensor| tensor.bytes).sum::<u64>();
            converted.tensors.extend(written);
            converted.files.push(path);
        }
        if shards.len() > 1 {
            write_index(dir, &shards, &names, converted.bytes)?;
        }
        Ok(converted)
    }

    /// The model's tensors in the order of names, a file's worth at a time; in a file those in parts go first, so that
    /// numbers stay aligned.
    fn shards(&self) -> Vec<Vec<Tensor>> {
        let (mut shards, mut size) = (vec![Vec::new()], 0);
        let mut parameters: Vec<_> =
            self.config.parameters().map(|(id, shape)| (id.to_string(), id, shape)).collect();
        parameters.sort_unstable();
        for (name, id, shape) in parameters {
            let format = if self.format == WeightDtype::Nf4 {
                target_dtype(&name, &shape, self.format, self.other)
            } else {
                self.format
            };
            let tensor = Tensor { id, name, shape, format };
            if size > 0 && self.limit.is_some_and(|limit| size + tensor.bytes() > limit) {
                shards.push(Vec::new());
                size = 0;
            }
            size += tensor.bytes();
            shards.last_mut().expect("there is one").push(tensor);
        }
        shards.iter_mut().for_each(|shard| shard.sort_by_key(|tensor| tensor.format != WeightDtype::Nf4));
        shards
    }
}

/// The `config.json` of converted weights: `config`, with the keys of `original` that belong to other programs and none
/// that lead to remote code.
pub fn config_json(
    config: &MptConfig,
    converted: &Converted,
    original: Option<&Map<String, Value>>,
) -> String {
    let Value::Object(mut out) = Value::from(config.clone()) else {
        unreachable!("a configuration is an object")
    };
    out.insert("torch_dtype".to_owned(), json!(nf4::torch_name(converted.other)));
    if converted.format == WeightDtype::Nf4 {
        out.insert("quantization_config".to_owned(), nf4::config(&converted.tensors, converted.other));
    }
    for (key, value) in original.into_iter().flatten() {
        let ours = out.contains_key(key) || MptConfig::knows_key(key);
        if !ours && !["auto_map", "dtype", "quantization_config"].contains(&key.as_str()) {
            out.insert(key.clone(), value.clone());
        }
    }
    serde_json::to_string_pretty(&out).expect("a JSON value can be printed") + "\n"
}

fn file_name(number: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{number:05}-of-{count:05}.safetensors"),
    }
}

fn write_shard(path: &Path, shard: &[Tensor], on_bytes: OnBytes<'_>, fill: Fill<'_>) -> Result<Vec<Written>> {
    let file = File::create(path).map_err(Error::io(path, "creating"))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let header = header(shard.iter().flat_map(Tensor::entries));
    let start = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    out.write_all(&start).map_err(Error::io(path, "writing"))?;
    let mut all = Vec::new();
    for tensor in shard {
        let written = fill(tensor, &mut out).map_err(|error| error.at(path))?;
        report(on_bytes, written.bytes)?;
        all.push(written);
    }
    out.flush().map_err(Error::io(path, "writing"))?;
    Ok(all)
}

fn write_index(dir: &Path, shards: &[Vec<Tensor>], names: &[String], total: u64) -> Result<()> {
    let mut map = Map::new();
    for (shard, file) in shards.iter().zip(names) {
        let entries = shard.iter().flat_map(Tensor::entries);
        map.extend(entries.map(|entry| (entry.name.into_owned(), json!(file))));
    }
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    let path = dir.join("model.safetensors.index.json");
    let text = serde_json::to_string_pretty(&index).expect("a JSON value can be printed") + "\n";
    std::fs::write(&path, text).map_err(Error::io(&path, "writing"))
}
