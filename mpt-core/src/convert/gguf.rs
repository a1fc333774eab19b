//! Conversion to a GGUF file for llama.cpp.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::copy::copy_tensor;
use super::{ConvertOptions, ConvertedModel, OnBytes, dtypes_by_size, report};
use crate::dtype::WeightDtype;
use crate::dtype_policy::target_dtype;
use crate::error::{Error, Result};
use crate::weights::gguf::{GgufWriter, metadata_of, padding, to_gguf};
use crate::weights::{TensorInfo, Weights};

/// Writes the GGUF file `path`. `name` is `general.name`; `describe` adds metadata such as the tokenizer.
///
/// Vectors are f32 under every dtype of matrices, as llama.cpp expects.
///
/// # Errors
/// [`Error::Unsupported`] naming an option that llama.cpp's MPT lacks, and the errors of the files.
pub fn write_gguf(
    weights: &Weights,
    path: &Path,
    name: &str,
    options: &ConvertOptions<'_>,
    describe: &mut dyn FnMut(&mut GgufWriter),
    on_bytes: OnBytes<'_>,
) -> Result<ConvertedModel> {
    let dtype = options.matrix_dtype_for(weights.matrix_dtype());
    if dtype == WeightDtype::Nf4 {
        return Err(Error::Unsupported {
            path: path.to_owned(),
            field: "dtype",
            actual: dtype.to_string(),
            instead: "GGUF has no such form; write a folder, or choose q4_k",
        });
    }
    let mut header = metadata_of(weights.config(), name, main_dtype(weights, dtype))?;
    describe(&mut header);
    let tensors = gguf_tensors(weights, dtype)?;
    for tensor in &tensors {
        header.tensor(&tensor.gguf_name, &tensor.shape, tensor.dtype);
    }
    let file = File::create(path).map_err(Error::io(path, "creating"))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    header.write_header(&mut out).map_err(Error::io(path, "writing"))?;
    let mut converted = Vec::new();
    for GgufTensor { name, dtype, .. } in &tensors {
        let tensor = copy_tensor(weights, name, *dtype, options.lora(name).as_ref(), &mut out)
            .map_err(|error| error.at(path))?;
        out.write_all(padding(tensor.bytes as usize)).map_err(Error::io(path, "writing"))?;
        report(on_bytes, tensor.bytes)?;
        converted.push(tensor);
    }
    out.flush().map_err(Error::io(path, "writing"))?;
    let bytes = converted.iter().map(|tensor| tensor.bytes).sum();
    let (files, other_dtype) = (vec![path.to_owned()], WeightDtype::F32);
    Ok(ConvertedModel { files, dtype, other_dtype, bytes, tensors: converted })
}

/// Dtype of a tensor when matrices are requested in `dtype`.
fn tensor_dtype(name: &str, shape: &[usize], dtype: WeightDtype) -> WeightDtype {
    target_dtype(name, shape, dtype, WeightDtype::F32)
}

/// Dtype of most values, which `general.file_type` states.
fn main_dtype(weights: &Weights, dtype: WeightDtype) -> WeightDtype {
    let shapes = weights.config().parameter_shapes();
    let dtypes = shapes.iter().map(|(name, shape)| (&shape[..], tensor_dtype(name, shape, dtype)));
    dtypes_by_size(dtypes).first().copied().unwrap_or(dtype)
}

/// Tensor to write.
struct GgufTensor {
    gguf_name: String,
    /// Checkpoint name.
    name: String,
    shape: Vec<usize>,
    dtype: WeightDtype,
}

/// Tensors of the model in the order of checkpoint names.
fn gguf_tensors(weights: &Weights, dtype: WeightDtype) -> Result<Vec<GgufTensor>> {
    let expected = weights.config().parameter_shapes();
    let tensors = weights.tensors().into_iter().filter(|tensor| expected.contains_key(&tensor.name));
    tensors
        .map(|TensorInfo { name, shape, .. }| {
            let gguf_name = to_gguf(&name).ok_or_else(|| Error::UnexpectedTensor {
                path: weights.path().to_owned(),
                name: name.clone(),
                instead: "llama.cpp's MPT has no such tensor; write a folder of safetensors",
            })?;
            let dtype = tensor_dtype(&name, &shape, dtype);
            Ok(GgufTensor { gguf_name, name, shape, dtype })
        })
        .collect()
}
