//! Which tensors a form is for, when a whole model is asked for in it.

use crate::dtype::WeightDtype;
use crate::params::ParamId;

/// The form of the tensor `name` where matrices are to be `asked`; `other` is that of what the form is not for.
///
/// Vectors belong to norms and biases and are never rounded. NF4 is for the linears of blocks alone, as in bitsandbytes. A
/// matrix whose rows the form's blocks do not fill gets [`WeightDtype::fitting`].
pub(crate) fn dtype_of(name: &str, shape: &[usize], asked: WeightDtype, other: WeightDtype) -> WeightDtype {
    match (asked, shape) {
        (WeightDtype::Nf4, &[_, len]) if is_block_linear(name) && len.is_multiple_of(asked.block_len()) => {
            asked
        }
        (WeightDtype::Nf4, _) | (_, [] | [_]) => other,
        (_, &[.., len]) => asked.fitting(len),
    }
}

/// The form in which a tensor stored as `stored` is handed out where `asked` was asked for: quantized only where that
/// makes it smaller, and as it is for f32, since widening is exact and happens at use.
pub(crate) fn loaded(name: &str, shape: &[usize], stored: WeightDtype, asked: WeightDtype) -> WeightDtype {
    if asked == WeightDtype::F32 {
        return stored;
    }
    let form = dtype_of(name, shape, asked, stored);
    let is_smaller = form.bits_per_value() < stored.bits_per_value();
    if asked.is_quantized() && !is_smaller { stored } else { form }
}

/// Whether a checkpoint's matrix is the weight of a linear map of a block.
pub(crate) fn is_block_linear(name: &str) -> bool {
    name.parse().is_ok_and(ParamId::is_block_linear)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: &str = "transformer.blocks.0.ffn.up_proj.weight";

    #[test]
    fn vectors_and_embeddings_keep_their_form() {
        let form = |name, shape: &[usize], asked| dtype_of(name, shape, asked, WeightDtype::BF16);
        assert_eq!(form("transformer.norm_f.weight", &[256], WeightDtype::Q4K), WeightDtype::BF16);
        assert_eq!(form("transformer.wte.weight", &[9, 256], WeightDtype::Q4K), WeightDtype::Q4K);
        assert_eq!(form("transformer.wte.weight", &[9, 256], WeightDtype::Nf4), WeightDtype::BF16);
        assert_eq!(form(LINEAR, &[9, 256], WeightDtype::Nf4), WeightDtype::Nf4);
        assert_eq!(form(LINEAR, &[9, 96], WeightDtype::Nf4), WeightDtype::BF16);
    }

    #[test]
    fn rows_that_blocks_do_not_fill_get_a_wider_form() {
        let form = |len, asked| dtype_of(LINEAR, &[9, len], asked, WeightDtype::F32);
        assert_eq!(form(96, WeightDtype::Q4K), WeightDtype::Q8_0);
        assert_eq!(form(96, WeightDtype::Q4_0), WeightDtype::Q4_0);
        assert_eq!(form(20, WeightDtype::Q6K), WeightDtype::F16);
        assert_eq!(form(20, WeightDtype::BF16), WeightDtype::BF16);
    }

    #[test]
    fn loading_makes_nothing_larger_by_quantizing() {
        let form = |stored, asked| loaded(LINEAR, &[9, 256], stored, asked);
        assert_eq!(form(WeightDtype::BF16, WeightDtype::Q8_0), WeightDtype::Q8_0);
        assert_eq!(form(WeightDtype::Q4K, WeightDtype::Q8_0), WeightDtype::Q4K);
        assert_eq!(form(WeightDtype::Q8_0, WeightDtype::Q4K), WeightDtype::Q4K);
        assert_eq!(form(WeightDtype::Q8_0, WeightDtype::F32), WeightDtype::Q8_0);
        assert_eq!(form(WeightDtype::Q8_0, WeightDtype::BF16), WeightDtype::BF16);
        assert_eq!(loaded(LINEAR, &[9, 20], WeightDtype::BF16, WeightDtype::Q8_0), WeightDtype::BF16);
    }
}
