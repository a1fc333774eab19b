//! Dtype of each tensor when a whole model is loaded or converted in one dtype.

use crate::dtype::WeightDtype;
use crate::params::ParamId;

/// Dtype of the tensor `name` for matrices in `requested`; `other` is the dtype of tensors outside the policy.
///
/// Vectors belong to norms and biases and are never rounded. NF4 is for the linear layers of blocks alone, as in bitsandbytes. A
/// matrix whose rows are no whole number of blocks gets [`WeightDtype::fallback_for`].
pub(crate) fn target_dtype(
    name: &str,
    shape: &[usize],
    requested: WeightDtype,
    other: WeightDtype,
) -> WeightDtype {
    match (requested, shape) {
        (WeightDtype::Nf4, &[_, len])
            if is_block_linear(name) && len.is_multiple_of(requested.block_len()) =>
        {
            requested
        }
        (WeightDtype::Nf4, _) | (_, [] | [_]) => other,
        (_, &[.., len]) => requested.fallback_for(len),
    }
}

/// Dtype in which a tensor stored as `stored` is loaded for matrices in `requested`.
///
/// f32 leaves every tensor as stored, since conversion to f32 is exact and happens in the kernels. A tensor is quantized only if
/// that makes it smaller.
pub(crate) fn load_dtype(
    name: &str,
    shape: &[usize],
    stored: WeightDtype,
    requested: WeightDtype,
) -> WeightDtype {
    if requested == WeightDtype::F32 {
        return stored;
    }
    let dtype = target_dtype(name, shape, requested, stored);
    let is_smaller = dtype.bits_per_value() < stored.bits_per_value();
    if requested.is_quantized() && !is_smaller { stored } else { dtype }
}

/// Whether `name` is the weight of a linear layer of a block.
pub(crate) fn is_block_linear(name: &str) -> bool {
    name.parse().is_ok_and(ParamId::is_block_linear)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: &str = "transformer.blocks.0.ffn.up_proj.weight";

    #[test]
    fn vectors_keep_their_dtype_and_nf4_is_for_block_linears() {
        let dtype =
            |name, shape: &[usize], requested| target_dtype(name, shape, requested, WeightDtype::BF16);
        assert_eq!(dtype("transformer.norm_f.weight", &[256], WeightDtype::Q4K), WeightDtype::BF16);
        assert_eq!(dtype("transformer.wte.weight", &[9, 256], WeightDtype::Q4K), WeightDtype::Q4K);
        assert_eq!(dtype("transformer.wte.weight", &[9, 256], WeightDtype::Nf4), WeightDtype::BF16);
        assert_eq!(dtype(LINEAR, &[9, 256], WeightDtype::Nf4), WeightDtype::Nf4);
        assert_eq!(dtype(LINEAR, &[9, 96], WeightDtype::Nf4), WeightDtype::BF16);
    }

    #[test]
    fn rows_that_blocks_do_not_fill_get_a_wider_dtype() {
        let dtype = |len, requested| target_dtype(LINEAR, &[9, len], requested, WeightDtype::F32);
        assert_eq!(dtype(96, WeightDtype::Q4K), WeightDtype::Q8_0);
        assert_eq!(dtype(96, WeightDtype::Q4_0), WeightDtype::Q4_0);
        assert_eq!(dtype(20, WeightDtype::Q6K), WeightDtype::F16);
        assert_eq!(dtype(20, WeightDtype::BF16), WeightDtype::BF16);
    }

    #[test]
    fn loading_quantizes_only_what_becomes_smaller() {
        let dtype = |stored, requested| load_dtype(LINEAR, &[9, 256], stored, requested);
        assert_eq!(dtype(WeightDtype::BF16, WeightDtype::Q8_0), WeightDtype::Q8_0);
        assert_eq!(dtype(WeightDtype::Q4K, WeightDtype::Q8_0), WeightDtype::Q4K);
        assert_eq!(dtype(WeightDtype::Q8_0, WeightDtype::Q4K), WeightDtype::Q4K);
        assert_eq!(dtype(WeightDtype::Q8_0, WeightDtype::F32), WeightDtype::Q8_0);
        assert_eq!(dtype(WeightDtype::Q8_0, WeightDtype::BF16), WeightDtype::BF16);
        assert_eq!(load_dtype(LINEAR, &[9, 20], WeightDtype::BF16, WeightDtype::Q8_0), WeightDtype::BF16);
    }
}
