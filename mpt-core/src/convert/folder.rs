//! Writer of a safetensors folder: tensors split into shards, with an index when there are several.
//!
//! The values come from a callback; `config.json` is not written here.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, json};

use super::copy::CopyError;
use super::{ConvertedModel, ConvertedTensor, OnBytes, nf4, report};
use crate::config::MptConfig;
use crate::dtype::WeightDtype;
use crate::dtype_policy::target_dtype;
use crate::error::{Error, Result};
use crate::params::ParamId;
use crate::weights::write::{HeaderEntry, header};

/// Tensor to write.
pub(super) struct OutputTensor {
    pub(super) id: ParamId,
    /// Checkpoint name.
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) dtype: WeightDtype,
}

impl OutputTensor {
    /// Header entries; an NF4 tensor has several.
    fn entries(&self) -> Vec<HeaderEntry<'_>> {
        match self.dtype {
            WeightDtype::Nf4 => nf4::header_entries(&self.name, &self.shape).collect(),
            dtype => vec![HeaderEntry::unquantized(&self.name, &self.shape, dtype)],
        }
    }

    /// Size in the file, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.entries().iter().map(|entry| entry.bytes as u64).sum()
    }
}

/// Callback that writes the values of one tensor.
pub(super) type WriteTensor<'a> =
    &'a mut dyn FnMut(&OutputTensor, &mut dyn Write) -> Result<ConvertedTensor, CopyError>;

/// Safetensors folder of a model.
pub(super) struct FolderWriter<'a> {
    pub(super) config: &'a MptConfig,
    /// Existing folder.
    pub(super) dir: &'a Path,
    /// Dtype of matrices.
    pub(super) dtype: WeightDtype,
    /// Dtype of the tensors that `dtype` does not apply to.
    pub(super) other_dtype: WeightDtype,
    /// Largest size of a file, in bytes.
    pub(super) max_shard_size: Option<u64>,
}

impl FolderWriter<'_> {
    /// Writes all shards and the index.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a quantized dtype other than NF4, [`Error::Io`], and those of `write_tensor`.
    pub(super) fn write(
        &self,
        on_bytes: OnBytes<'_>,
        write_tensor: WriteTensor<'_>,
    ) -> Result<ConvertedModel> {
        let Self { dir, dtype, other_dtype, .. } = *self;
        if dtype.is_quantized() && dtype != WeightDtype::Nf4 {
            let instead = "a folder holds f32, f16, bf16 or nf4; other quantized forms go into GGUF";
            return Err(unsupported(dir, dtype, instead));
        }
        let shards = self.shards();
        let names: Vec<String> = (1..=shards.len()).map(|number| file_name(number, shards.len())).collect();
        let mut converted =
            ConvertedModel { files: Vec::new(), dtype, other_dtype, bytes: 0, tensors: Vec::new() };
        for (shard, name) in shards.iter().zip(&names) {
            let path = dir.join(name);
            let tensors = write_shard(&path, shard, on_bytes, write_tensor)?;
            converted.bytes += tensors.iter().map(|tensor| tensor.bytes).sum::<u64>();
            converted.tensors.extend(tensors);
            converted.files.push(path);
        }
        if shards.len() > 1 {
            write_index(dir, &shards, &names, converted.bytes)?;
        }
        Ok(converted)
    }

    /// Tensors of each shard, in the order of names. NF4 tensors come first in a shard, which keeps the f32 data aligned.
    fn shards(&self) -> Vec<Vec<OutputTensor>> {
        let (mut shards, mut size) = (vec![Vec::new()], 0);
        for tensor in self.tensors() {
            if size > 0 && self.max_shard_size.is_some_and(|limit| size + tensor.bytes() > limit) {
                shards.push(Vec::new());
                size = 0;
            }
            size += tensor.bytes();
            shards.last_mut().expect("there is one").push(tensor);
        }
        shards.iter_mut().for_each(|shard| shard.sort_by_key(|tensor| tensor.dtype != WeightDtype::Nf4));
        shards
    }

    /// Tensors of the model in the order of names.
    fn tensors(&self) -> impl Iterator<Item = OutputTensor> {
        let mut parameters: Vec<_> =
            self.config.parameters().map(|(id, shape)| (id.to_string(), id, shape)).collect();
        parameters.sort_unstable();
        parameters.into_iter().map(|(name, id, shape)| {
            let dtype = match self.dtype {
                WeightDtype::Nf4 => target_dtype(&name, &shape, self.dtype, self.other_dtype),
                dtype => dtype,
            };
            OutputTensor { id, name, shape, dtype }
        })
    }
}

/// Error for a dtype that a folder does not hold.
pub(super) fn unsupported(dir: &Path, dtype: WeightDtype, instead: &'static str) -> Error {
    Error::Unsupported { path: dir.to_owned(), field: "dtype", actual: dtype.to_string(), instead }
}

fn file_name(number: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{number:05}-of-{count:05}.safetensors"),
    }
}

fn write_shard(
    path: &Path,
    shard: &[OutputTensor],
    on_bytes: OnBytes<'_>,
    write_tensor: WriteTensor<'_>,
) -> Result<Vec<ConvertedTensor>> {
    let file = File::create(path).map_err(Error::io(path, "creating"))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let header = header(shard.iter().flat_map(OutputTensor::entries));
    let start = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    out.write_all(&start).map_err(Error::io(path, "writing"))?;
    let mut converted = Vec::new();
    for tensor in shard {
        let tensor = write_tensor(tensor, &mut out).map_err(|error| error.at(path))?;
        report(on_bytes, tensor.bytes)?;
        converted.push(tensor);
    }
    out.flush().map_err(Error::io(path, "writing"))?;
    Ok(converted)
}

fn write_index(dir: &Path, shards: &[Vec<OutputTensor>], names: &[String], total_size: u64) -> Result<()> {
    let mut weight_map = Map::new();
    for (shard, file) in shards.iter().zip(names) {
        let entries = shard.iter().flat_map(OutputTensor::entries);
        weight_map.extend(entries.map(|entry| (entry.name.into_owned(), json!(file))));
    }
    let index = json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map });
    let path = dir.join("model.safetensors.index.json");
    let text = serde_json::to_string_pretty(&index).expect("a JSON value can be printed") + "\n";
    std::fs::write(&path, text).map_err(Error::io(&path, "writing"))
}
