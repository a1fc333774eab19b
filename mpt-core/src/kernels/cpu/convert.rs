//! Conversion of f32 to f16 and bf16, rounding to nearest, ties to even. Quantized dtypes are in `quantize`.

use crate::dtype::WeightDtype;

/// Bytes of `values` as `dtype`, which is f32, f16 or bf16.
pub(super) fn from_f32(dtype: WeightDtype, values: &[f32]) -> Vec<u8> {
    match dtype {
        WeightDtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        WeightDtype::F16 => {
            values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect()
        }
        WeightDtype::BF16 => {
            values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect()
        }
        _ => unreachable!("callers ask for f32, f16 or bf16; `quantize` has the quantized dtypes"),
    }
}
