//! NF4 tensor in a safetensors folder, as bitsandbytes saves it: codes, scales and quantization state.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::ConvertedTensor;
use crate::dtype::WeightDtype;
use crate::dtype_policy::is_block_linear;
use crate::kernels::cpu::quantize::nf4::{BLOCK, CODEBOOK, NESTED_BLOCK, Nf4, dynamic_map};
use crate::weights::nf4::NF4_STATE_SUFFIX;
use crate::weights::write::HeaderEntry;

/// Smallest size of a quantization state in bytes. Its JSON is padded with spaces, so its length is known in advance.
const STATE_BYTES: usize = 256;

/// Header entries of a tensor `[out, in]`, in the order of their data. f32 parts come first and the total is a multiple of 8
/// bytes, which keeps every value aligned.
pub(super) fn header_entries(name: &str, shape: &[usize]) -> impl Iterator<Item = HeaderEntry<'static>> {
    let num_values: usize = shape.iter().product();
    let (blocks, groups) = (num_values / BLOCK, (num_values / BLOCK).div_ceil(NESTED_BLOCK));
    let name = name.to_owned();
    let parts = [
        (".nested_absmax", "F32", vec![groups]),
        (".nested_quant_map", "F32", vec![dynamic_map().len()]),
        (".quant_map", "F32", vec![CODEBOOK.len()]),
        ("", "U8", vec![num_values / 2, 1]),
        (".absmax", "U8", vec![blocks]),
        (NF4_STATE_SUFFIX, "U8", vec![state_bytes(blocks, groups)]),
    ];
    parts.into_iter().map(move |(suffix, dtype, shape)| {
        let bytes = shape.iter().product::<usize>() * if dtype == "F32" { 4 } else { 1 };
        HeaderEntry { name: Cow::Owned(format!("{name}{suffix}")), dtype, shape: Cow::Owned(shape), bytes }
    })
}

fn state_bytes(blocks: usize, groups: usize) -> usize {
    let others = blocks + 4 * groups; // the remaining parts are multiples of eight
    (others + STATE_BYTES).next_multiple_of(8) - others
}

/// Writes the parts in the order of [`header_entries`]; returns their bytes. `other_dtype` is that of unquantized tensors.
pub(super) fn write(
    tensor: &Nf4,
    shape: &[usize],
    other_dtype: WeightDtype,
    out: &mut dyn Write,
) -> io::Result<u64> {
    let state = json!({
        "quant_type": "nf4",
        "blocksize": BLOCK,
        "dtype": torch_name(other_dtype),
        "shape": shape,
        "nested_blocksize": NESTED_BLOCK,
        "nested_dtype": "float32",
        "nested_offset": tensor.offset,
    });
    let len = state_bytes(tensor.absmax.len(), tensor.nested_absmax.len());
    let state = format!("{:<len$}", state.to_string());
    let scales = [&tensor.nested_absmax[..], dynamic_map(), &CODEBOOK].concat();
    let scales: Vec<u8> = scales.iter().flat_map(|x| x.to_le_bytes()).collect();
    let parts = [&scales[..], &tensor.codes, &tensor.absmax, state.as_bytes()];
    parts.iter().try_for_each(|part| out.write_all(part))?;
    Ok(parts.iter().map(|part| part.len() as u64).sum())
}

/// `quantization_config` of a folder with these tensors, as transformers writes it. Linears with rows of partial blocks are
/// not quantized, and are listed in `llm_int8_skip_modules`.
pub(super) fn config(tensors: &[ConvertedTensor], other_dtype: WeightDtype) -> Value {
    let is_kept = |tensor: &&ConvertedTensor| {
        is_block_linear(&tensor.name) && tensor.shape.len() == 2 && tensor.dtype != WeightDtype::Nf4
    };
    let layer = |tensor: &'_ ConvertedTensor| tensor.name.trim_end_matches(".weight").to_owned();
    let kept: Vec<String> = tensors.iter().filter(is_kept).map(layer).collect();
    let skipped =
        if kept.is_empty() { Value::Null } else { json!([&["lm_head".to_owned()][..], &kept].concat()) };
    json!({
        "_load_in_4bit": true,
        "_load_in_8bit": false,
        "bnb_4bit_compute_dtype": torch_name(other_dtype),
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": true,
        "llm_int8_enable_fp32_cpu_offload": false,
        "llm_int8_has_fp16_weight": false,
        "llm_int8_skip_modules": skipped,
        "llm_int8_threshold": 6.0,
        "load_in_4bit": true,
        "load_in_8bit": false,
        "quant_method": "bitsandbytes",
    })
}

/// torch's name of an unquantized dtype.
pub(super) fn torch_name(dtype: WeightDtype) -> &'static str {
    match dtype {
        WeightDtype::F16 => "float16",
        WeightDtype::BF16 => "bfloat16",
        _ => "float32",
    }
}
