//! Conversion to a safetensors folder for transformers.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::copy::{copy_tensor, copy_tensor_nf4};
use super::folder::FolderWriter;
use super::{ConvertOptions, ConvertedModel, OnBytes, nf4, unquantized};
use crate::config::MptConfig;
use crate::dtype::WeightDtype;
use crate::error::Result;
use crate::weights::Weights;

/// Writes `model.safetensors`, or shards with an index, to the existing folder `dir`. The text of `config.json` comes from
/// [`config_json`].
///
/// # Errors
/// [`Error::Unsupported`](crate::Error::Unsupported) for a quantized dtype other than NF4, and the errors of the files.
pub fn write_hf(
    weights: &Weights,
    dir: &Path,
    options: &ConvertOptions<'_>,
    on_bytes: OnBytes<'_>,
) -> Result<ConvertedModel> {
    let source = weights.matrix_dtype();
    let dtype = options.matrix_dtype_for(source);
    let other_dtype = if dtype == WeightDtype::Nf4 { unquantized(source) } else { dtype };
    let config = weights.config();
    let folder = FolderWriter { config, dir, dtype, other_dtype, max_shard_size: options.max_shard_size };
    folder.write(on_bytes, &mut |tensor, out| {
        let lora = options.lora(&tensor.name);
        match tensor.dtype {
            WeightDtype::Nf4 => copy_tensor_nf4(weights, &tensor.name, other_dtype, lora.as_ref(), out),
            dtype => copy_tensor(weights, &tensor.name, dtype, lora.as_ref(), out),
        }
    })
}

/// Text of the `config.json` of a converted model: `config`, and the keys of `original` that belong to other programs.
/// Keys that lead to remote code are dropped.
pub fn config_json(
    config: &MptConfig,
    converted: &ConvertedModel,
    original: Option<&Map<String, Value>>,
) -> String {
    let Value::Object(mut out) = Value::from(config.clone()) else {
        unreachable!("a configuration is an object")
    };
    out.insert("torch_dtype".to_owned(), json!(nf4::torch_name(converted.other_dtype)));
    if converted.dtype == WeightDtype::Nf4 {
        out.insert("quantization_config".to_owned(), nf4::config(&converted.tensors, converted.other_dtype));
    }
    for (key, value) in original.into_iter().flatten() {
        let ours = out.contains_key(key) || MptConfig::is_config_key(key);
        if !ours && !["auto_map", "dtype", "quantization_config"].contains(&key.as_str()) {
            out.insert(key.clone(), value.clone());
        }
    }
    serde_json::to_string_pretty(&out).expect("a JSON value can be printed") + "\n"
}
