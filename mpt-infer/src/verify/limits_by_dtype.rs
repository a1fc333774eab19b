//! Default limits of a comparison of logits, by the dtype of the weights.
//!
//! | narrower dtype | share of the range | KL divergence | top-1 agreement | rounding |
//! |---|---|---|---|---|
//! | f32 | 1e-4 | 1e-6 | 0.9 | sums in another order, 24 bits |
//! | f16 | 1e-2 | 1e-3 | 0.8 | 11 bits of each weight |
//! | bf16 | 5e-2 | 2e-2 | 0.8 | 8 bits of each weight |
//! | q8_0 | 1e-1 | 1e-1 | 0.6 | 8 bits below the largest of 32 weights |
//! | q6_k | 2e-1 | 3e-1 | 0.5 | 6 bits below the largest of 16 |
//! | q5_k | 3e-1 | 1 | 0.4 | 5 bits |
//! | q4_0, q4_k, nf4 | 5e-1 | 6 | 0.2 | 4 bits |
//!
//! The share of the range and the KL divergence bound the worst position. They are three times or more the largest values of
//! sound models, random and trained, with 32 to 512 channels. Random weights agree least, since their logits are close
//! together. Damage within these bounds shows in a quantized model's matrices, which
//! [`compare_weights`](super::compare_weights) compares.
//!
//! Products of the q dtypes round activations to 8 bits, and sums in another order can round to the next step. Decoding and
//! prefill of such a model may therefore differ by 3e-2 of the range (sound models: 8e-3).

use std::collections::BTreeMap;

use mpt_core::{WeightDtype, Weights};

use super::Limits;
use crate::error::Result;

/// Dtypes of a model's matrices, by name. Vectors are left out, since conversions widen them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixDtypes(BTreeMap<String, WeightDtype>);

impl MatrixDtypes {
    /// Dtypes of the matrices of `weights` when rounded to `asked`.
    ///
    /// # Errors
    /// Those of the weights.
    pub fn of(weights: &Weights, asked: WeightDtype) -> Result<Self> {
        let shapes = weights.config().parameter_shapes();
        let matrices = shapes.into_iter().filter(|(_, shape)| shape.len() > 1);
        let rounded = weights.clone().with_dtype(asked);
        let dtype = |(name, _): (String, Vec<usize>)| {
            let dtype = narrower(weights.loaded_dtype(&name)?, rounded.loaded_dtype(&name)?);
            Ok((name, dtype))
        };
        Ok(Self(matrices.map(dtype).collect::<Result<_>>()?))
    }

    /// Narrowest dtype of all matrices.
    pub fn narrowest(&self) -> WeightDtype {
        self.0.values().copied().fold(WeightDtype::F32, narrower)
    }
}

/// Default limits between two models: those of the narrowest dtype among matrices whose dtypes differ. Matrices of one dtype
/// are equal, and leave the order of sums.
///
/// Without a second model the reference counts as f32.
pub fn limits_between(model: &MatrixDtypes, against: Option<&MatrixDtypes>) -> Limits {
    let pair = |(name, &dtype): (&String, &WeightDtype)| {
        let other = against
            .map_or(WeightDtype::F32, |against| against.0.get(name).copied().unwrap_or(WeightDtype::F32));
        if dtype == other { WeightDtype::F32 } else { narrower(dtype, other) }
    };
    limits(model.0.iter().map(pair).fold(WeightDtype::F32, narrower))
}

/// Default limits of a model against itself, computed in another way.
pub fn limits_alone(model: &MatrixDtypes) -> Limits {
    match model.0.values().any(|&dtype| rounds_activations(dtype)) {
        true => Limits { tolerance: 3e-2, max_kl: Some(1e-2), min_top1: Some(0.9) },
        false => limits(WeightDtype::F32),
    }
}

/// Whether products of a dtype round activations to 8 bits.
fn rounds_activations(dtype: WeightDtype) -> bool {
    use WeightDtype as W;
    matches!(dtype, W::Q8_0 | W::Q6K | W::Q5K | W::Q4K | W::Q4_0)
}

/// Limits of one rounding to a dtype.
fn limits(dtype: WeightDtype) -> Limits {
    let (tolerance, max_kl, min_top1) = match dtype {
        WeightDtype::F32 => (1e-4, 1e-6, 0.9),
        WeightDtype::F16 => (1e-2, 1e-3, 0.8),
        WeightDtype::BF16 => (5e-2, 2e-2, 0.8),
        WeightDtype::Q8_0 => (1e-1, 1e-1, 0.6),
        WeightDtype::Q6K => (2e-1, 3e-1, 0.5),
        WeightDtype::Q5K => (3e-1, 1.0, 0.4),
        WeightDtype::Q4_0 | WeightDtype::Q4K | WeightDtype::Nf4 => (5e-1, 6.0, 0.2),
    };
    Limits { tolerance, max_kl: Some(max_kl), min_top1: Some(min_top1) }
}

/// Narrower dtype of two; the first where both round alike.
pub(super) fn narrower(a: WeightDtype, b: WeightDtype) -> WeightDtype {
    if limits(b).tolerance > limits(a).tolerance { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dtypes(dtype: WeightDtype) -> MatrixDtypes {
        MatrixDtypes([("a".to_owned(), dtype), ("b".to_owned(), WeightDtype::BF16)].into())
    }

    #[test]
    fn the_narrower_of_two_different_forms_decides() {
        let between = |a, b| limits_between(&dtypes(a), Some(&dtypes(b))).tolerance;
        assert_eq!(between(WeightDtype::BF16, WeightDtype::BF16), 1e-4);
        assert_eq!(between(WeightDtype::F32, WeightDtype::F16), 1e-2);
        assert_eq!(between(WeightDtype::Q8_0, WeightDtype::BF16), 1e-1);
        assert_eq!(between(WeightDtype::BF16, WeightDtype::Q4K), 5e-1);
        assert_eq!(limits_between(&dtypes(WeightDtype::F32), None).tolerance, 5e-2);
        let four_bits = limits_between(&dtypes(WeightDtype::Q4K), None);
        assert_eq!((four_bits.max_kl, four_bits.min_top1), (Some(6.0), Some(0.2)));
        assert_eq!(dtypes(WeightDtype::Q6K).narrowest(), WeightDtype::Q6K);
    }

    #[test]
    fn alone_only_rounded_activations_count() {
        let alone = |dtype| limits_alone(&dtypes(dtype)).tolerance;
        assert_eq!((alone(WeightDtype::Nf4), alone(WeightDtype::F16)), (1e-4, 1e-4));
        assert_eq!((alone(WeightDtype::Q8_0), alone(WeightDtype::Q4K)), (3e-2, 3e-2));
    }
}
