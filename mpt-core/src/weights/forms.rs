//! Which tensors a form is for, when a whole model is asked for in it.

use super::format::Format;
use crate::params::ParamId;

/// The form of the tensor `name` where matrices are to be `asked`; `other` is that of what the form is not for.
///
/// Vectors belong to norms and biases and are never rounded. NF4 is for the linears of blocks alone, as in bitsandbytes. A
/// matrix whose rows the form's blocks do not fill gets [`Format::fitting`].
pub(crate) fn form_of(name: &str, shape: &[usize], asked: Format, other: Format) -> Format {
    match (asked, shape) {
        (Format::Nf4, &[_, len]) if is_block_linear(name) && len.is_multiple_of(asked.block_len()) => asked,
        (Format::Nf4, _) | (_, [] | [_]) => other,
        (_, &[.., len]) => asked.fitting(len),
    }
}

/// The form in which a tensor stored as `stored` is handed out where `asked` was asked for: quantized only where that
/// makes it smaller, and as it is for f32, since widening is exact and happens at use.
pub(crate) fn loaded(name: &str, shape: &[usize], stored: Format, asked: Format) -> Format {
    if asked == Format::F32 {
        return stored;
    }
    let form = form_of(name, shape, asked, stored);
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
        let form = |name, shape: &[usize], asked| form_of(name, shape, asked, Format::BF16);
        assert_eq!(form("transformer.norm_f.weight", &[256], Format::Q4K), Format::BF16);
        assert_eq!(form("transformer.wte.weight", &[9, 256], Format::Q4K), Format::Q4K);
        assert_eq!(form("transformer.wte.weight", &[9, 256], Format::Nf4), Format::BF16);
        assert_eq!(form(LINEAR, &[9, 256], Format::Nf4), Format::Nf4);
        assert_eq!(form(LINEAR, &[9, 96], Format::Nf4), Format::BF16);
    }

    #[test]
    fn rows_that_blocks_do_not_fill_get_a_wider_form() {
        let form = |len, asked| form_of(LINEAR, &[9, len], asked, Format::F32);
        assert_eq!(form(96, Format::Q4K), Format::Q8_0);
        assert_eq!(form(96, Format::Q4_0), Format::Q4_0);
        assert_eq!(form(20, Format::Q6K), Format::F16);
        assert_eq!(form(20, Format::BF16), Format::BF16);
    }

    #[test]
    fn loading_makes_nothing_larger_by_quantizing() {
        let form = |stored, asked| loaded(LINEAR, &[9, 256], stored, asked);
        assert_eq!(form(Format::BF16, Format::Q8_0), Format::Q8_0);
        assert_eq!(form(Format::Q4K, Format::Q8_0), Format::Q4K);
        assert_eq!(form(Format::Q8_0, Format::Q4K), Format::Q4K);
        assert_eq!(form(Format::Q8_0, Format::F32), Format::Q8_0);
        assert_eq!(form(Format::Q8_0, Format::BF16), Format::BF16);
        assert_eq!(loaded(LINEAR, &[9, 20], Format::BF16, Format::Q8_0), Format::BF16);
    }
}
