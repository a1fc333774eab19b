//! Writing the GGUF file that llama.cpp reads.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::rows::copy;
use super::{ConvertOptions, Converted, OnBytes, forms_of, report};
use crate::dtype::WeightDtype;
use crate::dtype_policy::target_dtype;
use crate::error::{Error, Result};
use crate::weights::gguf::{GgufWriter, metadata_of, padding, to_gguf};
use crate::weights::{TensorInfo, Weights};

/// Writes the file `path`; `name` is the model's, `describe` adds metadata such as the tokenizer's. `on_bytes` hears of the bytes
/// written.
///
/// Vectors are f32 whatever the matrices are, as llama.cpp expects.
///
/// # Errors
/// [`Error::Unsupported`] naming an option that llama.cpp's MPT does not have, and those of the files.
pub fn write_gguf(
    weights: &Weights,
    path: &Path,
    name: &str,
    options: &ConvertOptions<'_>,
    describe: &mut dyn FnMut(&mut GgufWriter),
    on_bytes: OnBytes<'_>,
) -> Result<Converted> {
    let format = options.format_for(weights.matrix_format());
    if format == WeightDtype::Nf4 {
        return Err(Error::Unsupported {
            path: path.to_owned(),
            field: "dtype",
            actual: format.to_string(),
            instead: "GGUF has no such form; write a folder, or choose q4_k",
        });
    }
    let form_of = |name: &str, shape: &[usize]| target_dtype(name, shape, format, WeightDtype::F32);
    let shapes = weights.config().parameter_shapes();
    let forms = forms_of(shapes.iter().map(|(name, shape)| (&shape[..], form_of(name, shape))));
    let mut header = metadata_of(weights.config(), name, forms.first().copied().unwrap_or(format))?;
    describe(&mut header);
    let tensors = named(weights)?;
    let form = |tensor: &TensorInfo| form_of(&tensor.name, &tensor.shape);
    for (gguf, tensor) in &tensors {
        header.tensor(gguf, &tensor.shape, form(tensor));
    }
    let file = File::create(path).map_err(Error::io(path, "creating"))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    header.write_header(&mut out).map_err(Error::io(path, "writing"))?;
    let mut written = Vec::new();
    for (_, tensor) in &tensors {
        let lora = options.lora(&tensor.name);
        let tensor = copy(weights, &tensor.name, form(tensor), lora.as_ref(), &mut out)
            .map_err(|error| error.at(path))?;
        out.write_all(padding(tensor.bytes as usize)).map_err(Error::io(path, "writing"))?;
        report(on_bytes, tensor.bytes)?;
        written.push(tensor);
    }
    out.flush().map_err(Error::io(path, "writing"))?;
    let bytes = written.iter().map(|tensor| tensor.bytes).sum();
    Ok(Converted { files: vec![path.to_owned()], format, other: WeightDtype::F32, bytes, tensors: written })
}

/// The model's tensors with llama.cpp's names, in the order of checkpoint names.
fn named(weights: &Weights) -> Result<Vec<(String, TensorInfo)>> {
    let expected = weights.config().parameter_shapes();
    let tensors = weights.tensors().into_iter().filter(|tensor| expected.contains_key(&tensor.name));
    tensors
        .map(|tensor| {
            let gguf = to_gguf(&tensor.name).ok_or_else(|| Error::UnexpectedTensor {
                path: weights.path().to_owned(),
                name: tensor.name.clone(),
                instead: "llama.cpp's MPT has no such tensor; write a folder of safetensors",
            })?;
            Ok((gguf, tensor))
        })
        .collect()
}
