//! A tensor of a folder in NF4: what a header says of its parts, and the parts themselves.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::Written;
use crate::dtype::WeightDtype;
use crate::dtype_policy::is_block_linear;
use crate::kernels::cpu::quantize::nf4::{BLOCK, CODEBOOK, NESTED_BLOCK, Nf4, dynamic_map};
use crate::weights::nf4::STATE;
use crate::weights::write::Entry;

/// Bytes of a state at least: it is written as JSON, followed by spaces, so that its length is known before its numbers.
const STATE_BYTES: usize = 256;

/// The parts of a tensor `[out, in]`, in the order of their data. Numbers of four bytes go first and all bytes together are
/// a multiple of eight: readers want every number aligned.
pub(super) fn entries(name: &str, shape: &[usize]) -> impl Iterator<Item = Entry<'static>> {
    let num_values: usize = shape.iter().product();
    let (blocks, groups) = (num_values / BLOCK, (num_values / BLOCK).div_ceil(NESTED_BLOCK));
    let name = name.to_owned();
    let parts = [
        (".nested_absmax", "F32", vec![groups]),
        (".nested_quant_map", "F32", vec![dynamic_map().len()]),
        (".quant_map", "F32", vec![CODEBOOK.len()]),
        ("", "U8", vec![num_values / 2, 1]),
        (".absmax", "U8", vec![blocks]),
        (STATE, "U8", vec![state_bytes(blocks, groups)]),
    ];
    parts.into_iter().map(move |(suffix, dtype, shape)| {
        let bytes = shape.iter().product::<usize>() * if dtype == "F32" { 4 } else { 1 };
        Entry { name: Cow::Owned(format!("{name}{suffix}")), dtype, shape: Cow::Owned(shape), bytes }
    })
}

fn state_bytes(blocks: usize, groups: usize) -> usize {
    let others = blocks + 4 * groups; // the remaining parts are multiples of eight
    (others + STATE_BYTES).next_multiple_of(8) - others
}

/// Writes the parts in that order, and returns the number of bytes. `other` is the form of what is not quantized.
pub(super) fn write(
    tensor: &Nf4,
    shape: &[usize],
    other: WeightDtype,
    out: &mut dyn Write,
) -> io::Result<u64> {
    let state = json!({
        "quant_type": "nf4",
        "blocksize": BLOCK,
        "dtype": torch_name(other),
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

/// The `quantization_config` of a folder with these tensors, as transformers writes it. Linears whose rows are no whole
/// number of blocks stay as they are, so they are named.
pub(super) fn config(tensors: &[Written], other: WeightDtype) -> Value {
    let is_kept = |tensor: &&Written| {
        is_block_linear(&tensor.name) && tensor.shape.len() == 2 && tensor.format != WeightDtype::Nf4
    };
    let layer = |tensor: &'_ Written| tensor.name.trim_end_matches(".weight").to_owned();
    let kept: Vec<String> = tensors.iter().filter(is_kept).map(layer).collect();
    let skipped =
        if kept.is_empty() { Value::Null } else { json!([&["lm_head".to_owned()][..], &kept].concat()) };
    json!({
        "_load_in_4bit": true,
        "_load_in_8bit": false,
        "bnb_4bit_compute_dtype": torch_name(other),
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

/// A plain form as torch calls it.
pub(super) fn torch_name(format: WeightDtype) -> &'static str {
    match format {
        WeightDtype::F16 => "float16",
        WeightDtype::BF16 => "bfloat16",
        _ => "float32",
    }
}
