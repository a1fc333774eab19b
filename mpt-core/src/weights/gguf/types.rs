//! Weight dtypes as ggml numbers them.

use crate::dtype::WeightDtype;

/// Weight dtype of a ggml type; `None` for unsupported ones.
///
/// Source: `ggml.h`, `enum ggml_type`.
pub(super) fn dtype_of_ggml_type(ggml_type: u32) -> Option<WeightDtype> {
    match ggml_type {
        0 => Some(WeightDtype::F32),
        1 => Some(WeightDtype::F16),
        2 => Some(WeightDtype::Q4_0),
        8 => Some(WeightDtype::Q8_0),
        12 => Some(WeightDtype::Q4K),
        13 => Some(WeightDtype::Q5K),
        14 => Some(WeightDtype::Q6K),
        30 => Some(WeightDtype::BF16),
        _ => None,
    }
}

/// ggml type of a weight dtype; `None` when ggml has none.
pub(super) fn ggml_type_of(dtype: WeightDtype) -> Option<u32> {
    Some(match dtype {
        WeightDtype::F32 => 0,
        WeightDtype::F16 => 1,
        WeightDtype::Q4_0 => 2,
        WeightDtype::Q8_0 => 8,
        WeightDtype::Q4K => 12,
        WeightDtype::Q5K => 13,
        WeightDtype::Q6K => 14,
        WeightDtype::BF16 => 30,
        WeightDtype::Nf4 => return None,
    })
}

/// llama.cpp's file type for a model whose matrices have this dtype.
///
/// Source: `llama.h`, `enum llama_ftype`.
pub(super) fn file_type(dtype: WeightDtype) -> u32 {
    match dtype {
        WeightDtype::F32 => 0,
        WeightDtype::F16 => 1,
        WeightDtype::Q4_0 => 2,
        WeightDtype::Q8_0 => 7,
        WeightDtype::Q4K => 15,
        WeightDtype::Q5K => 17,
        WeightDtype::Q6K => 18,
        WeightDtype::BF16 => 32,
        WeightDtype::Nf4 => unreachable!("refused by name before"),
    }
}
