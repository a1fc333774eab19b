//! How far logits may be apart because of how weights are stored, and because of how they are multiplied.
//!
//! | narrower form | share of the range | KL divergence | top-1 agreement | because |
//! |---|---|---|---|---|
//! | f32 | 1e-4 | 1e-6 | 0.9 | sums in another order, 24 bits |
//! | f16 | 1e-2 | 1e-3 | 0.8 | 11 bits of each weight |
//! | bf16 | 5e-2 | 2e-2 | 0.8 | 8 bits of each weight |
//! | q8_0 | 1e-1 | 1e-1 | 0.6 | 8 bits below the largest of 32 weights |
//! | q6_k | 2e-1 | 3e-1 | 0.5 | 6 bits below the largest of 16 |
//! | q5_k | 3e-1 | 1 | 0.4 | 5 bits |
//! | q4_0, q4_k, nf4 | 5e-1 | 6 | 0.2 | 4 bits |
//!
//! The first two bound the worst of all logits and positions. They are three times or more what sound models of random and
//! of trained weights, of 32 to 512 channels, showed at most: random weights agree least, since their logits are all alike.
//! What so wide bounds let through in a quantized model shows in its matrices, which [`compare_weights`](super::compare_weights)
//! looks at.
//!
//! The q forms round activations to 8 bits, which sums in another order can tip either way: on the way from one token at a time
//! to all at once, such a model may be 3e-2 of the range apart from itself (sound models showed 8e-3).

use std::collections::BTreeMap;

use mpt_core::{WeightDtype, Weights};

use super::Limits;
use crate::error::Result;

/// The forms of a model's matrices, by name. Vectors are left out: they are few, and conversions widen them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forms(BTreeMap<String, WeightDtype>);

impl Forms {
    /// The forms in which `weights`, as opened, compute when rounded to `asked`.
    ///
    /// # Errors
    /// Those of the weights.
    pub fn of(weights: &Weights, asked: WeightDtype) -> Result<Self> {
        let shapes = weights.config().parameter_shapes();
        let matrices = shapes.into_iter().filter(|(_, shape)| shape.len() > 1);
        let rounded = weights.clone().with_dtype(asked);
        let form = |(name, _): (String, Vec<usize>)| {
            let form = narrower(weights.loaded_dtype(&name)?, rounded.loaded_dtype(&name)?);
            Ok((name, form))
        };
        Ok(Self(matrices.map(form).collect::<Result<_>>()?))
    }

    /// The narrowest form of all.
    pub fn narrowest(&self) -> WeightDtype {
        self.0.values().copied().fold(WeightDtype::F32, narrower)
    }
}

/// The default limits between two models: those of the narrowest form among the matrices that have another form in each. A
/// conversion that keeps the form keeps every number, and leaves sums in another order.
///
/// Without a second model the reference counts as f32.
pub fn limits_between(model: &Forms, against: Option<&Forms>) -> Limits {
    let pair = |(name, &form): (&String, &WeightDtype)| {
        let other = against
            .map_or(WeightDtype::F32, |against| against.0.get(name).copied().unwrap_or(WeightDtype::F32));
        if form == other { WeightDtype::F32 } else { narrower(form, other) }
    };
    limits(model.0.iter().map(pair).fold(WeightDtype::F32, narrower))
}

/// The default limits of a model against itself, computed in another way.
pub fn limits_alone(model: &Forms) -> Limits {
    match model.0.values().any(|&form| rounds_activations(form)) {
        true => Limits { tolerance: 3e-2, max_kl: Some(1e-2), min_top1: Some(0.9) },
        false => limits(WeightDtype::F32),
    }
}

/// Whether matrices of a form are multiplied with activations rounded to 8 bits.
fn rounds_activations(form: WeightDtype) -> bool {
    use WeightDtype as W;
    matches!(form, W::Q8_0 | W::Q6K | W::Q5K | W::Q4K | W::Q4_0)
}

/// The limits of one rounding to a form.
fn limits(form: WeightDtype) -> Limits {
    let (tolerance, max_kl, min_top1) = match form {
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

/// The form that rounds more; the first where both do the same.
pub(super) fn narrower(a: WeightDtype, b: WeightDtype) -> WeightDtype {
    if limits(b).tolerance > limits(a).tolerance { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(form: WeightDtype) -> Forms {
        Forms([("a".to_owned(), form), ("b".to_owned(), WeightDtype::BF16)].into())
    }

    #[test]
    fn the_narrower_of_two_different_forms_decides() {
        let between = |a, b| limits_between(&forms(a), Some(&forms(b))).tolerance;
        assert_eq!(between(WeightDtype::BF16, WeightDtype::BF16), 1e-4);
        assert_eq!(between(WeightDtype::F32, WeightDtype::F16), 1e-2);
        assert_eq!(between(WeightDtype::Q8_0, WeightDtype::BF16), 1e-1);
        assert_eq!(between(WeightDtype::BF16, WeightDtype::Q4K), 5e-1);
        assert_eq!(limits_between(&forms(WeightDtype::F32), None).tolerance, 5e-2);
        let four_bits = limits_between(&forms(WeightDtype::Q4K), None);
        assert_eq!((four_bits.max_kl, four_bits.min_top1), (Some(6.0), Some(0.2)));
        assert_eq!(forms(WeightDtype::Q6K).narrowest(), WeightDtype::Q6K);
    }

    #[test]
    fn alone_only_rounded_activations_count() {
        let alone = |form| limits_alone(&forms(form)).tolerance;
        assert_eq!((alone(WeightDtype::Nf4), alone(WeightDtype::F16)), (1e-4, 1e-4));
        assert_eq!((alone(WeightDtype::Q8_0), alone(WeightDtype::Q4K)), (3e-2, 3e-2));
    }
}
