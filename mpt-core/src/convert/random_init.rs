//! Randomly initialized model written to a safetensors folder, one tensor in memory at a time.

use std::path::Path;

use super::copy::CopyError;
use super::folder::{FolderWriter, unsupported};
use super::{ConvertOptions, ConvertedModel, ConvertedTensor, OnBytes};
use crate::config::MptConfig;
use crate::dtype::WeightDtype;
use crate::error::Result;
use crate::init::initial_values;
use crate::kernels::cpu::quantize::{QuantizeError, convert_float};
use crate::loading::refused;
use crate::memory::check_memory;

/// Values rounded at once.
const CHUNK_VALUES: usize = 1 << 20;

/// Initializes a model by its configuration's scheme and writes it to the existing folder `dir`, unquantized. The values
/// are those of [`Params::init`](crate::Params::init).
///
/// # Errors
/// As [`write_hf`](super::write_hf), and [`Error::Config`](crate::Error::Config) when the scheme lacks a value.
pub fn write_random_init(
    config: &MptConfig,
    seed: u64,
    dir: &Path,
    options: &ConvertOptions<'_>,
    on_bytes: OnBytes<'_>,
) -> Result<ConvertedModel> {
    let dtype = options.dtype.unwrap_or(WeightDtype::F32);
    if dtype == WeightDtype::Nf4 {
        return Err(unsupported(dir, dtype, "draw it in f32, f16 or bf16, and quantize that"));
    }
    let max_shard_size = options.max_shard_size;
    let folder = FolderWriter { config, dir, dtype, other_dtype: dtype, max_shard_size };
    folder.write(on_bytes, &mut |tensor, out| {
        let bytes =
            tensor.shape.iter().fold(size_of::<f32>() as u64, |bytes, &n| bytes.saturating_mul(n as u64));
        check_memory(bytes)?;
        let values = initial_values(config, seed, tensor.id, &tensor.shape)?;
        for (chunk, values) in values.chunks(CHUNK_VALUES).enumerate() {
            let first = chunk * CHUNK_VALUES;
            let refused = |refusal: QuantizeError| refused(dir, &tensor.name, dtype, refusal.after(first));
            let bytes = convert_float(dtype, values).map_err(refused)?;
            out.write_all(&bytes).map_err(CopyError::Output)?;
        }
        let (name, shape, bytes) = (tensor.name.clone(), tensor.shape.clone(), tensor.bytes());
        Ok(ConvertedTensor { name, dtype, shape, bytes, squared_norm: 0.0, squared_error: 0.0 })
    })
}
