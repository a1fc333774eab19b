//! From f32 to the halves, rounding to nearest, ties to even. Forms with shared scales are in `quantize`.

use crate::dtype::WeightDtype;

/// The bytes of `values` in `format`, one of the plain forms.
pub(crate) fn narrow(format: WeightDtype, values: &[f32]) -> Vec<u8> {
    match format {
        WeightDtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        WeightDtype::F16 => {
            values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect()
        }
        WeightDtype::BF16 => {
            values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect()
        }
        _ => unreachable!("callers ask for plain forms; quantized ones are made in `quantize`"),
    }
}
