//! How far logits may be apart because of how weights are stored.
//!
//! | narrower form | tolerance | because |
//! |---|---|---|
//! | f32 | 1e-4 | sums in another order, 24 bits |
//! | f16 | 1e-2 | 11 bits of each weight |
//! | bf16 | 5e-2 | 8 bits of each weight |
//! | q8_0 | 1e-1 | 8 bits below the largest of 32 weights |
//! | q6_k | 2e-1 | 6 bits below the largest of 16 |
//! | q5_k | 3e-1 | 5 bits |
//! | q4_0, q4_k, nf4 | 5e-1 | 4 bits |
//!
//! The numbers bound the largest error of any logit at any position, which lies several times above the typical one.

use std::collections::BTreeMap;

use mpt_core::{WeightDtype, Weights};

use crate::error::Result;

/// Tolerance where both sides hold the same numbers: only the order of sums may differ.
pub const SAME_FORM_TOLERANCE: f64 = 1e-4;

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
        let rounded = weights.clone().rounded_to(asked);
        let form = |(name, _): (String, Vec<usize>)| {
            let form = narrower(weights.form(&name)?, rounded.form(&name)?);
            Ok((name, form))
        };
        Ok(Self(matrices.map(form).collect::<Result<_>>()?))
    }

    /// The narrowest form of all.
    pub fn narrowest(&self) -> WeightDtype {
        self.0.values().copied().fold(WeightDtype::F32, narrower)
    }
}

/// The default tolerance between two models: [`SAME_FORM_TOLERANCE`] where every matrix has the same form in both, since
/// a conversion that keeps the form keeps every number, else that of the narrowest form among those that differ.
///
/// Without a second model the reference counts as f32.
pub fn tolerance_between(model: &Forms, against: Option<&Forms>) -> f64 {
    let pair = |(name, &form): (&String, &WeightDtype)| {
        let other = against
            .map_or(WeightDtype::F32, |against| against.0.get(name).copied().unwrap_or(WeightDtype::F32));
        if form == other { SAME_FORM_TOLERANCE } else { tolerance(narrower(form, other)) }
    };
    model.0.iter().map(pair).fold(SAME_FORM_TOLERANCE, f64::max)
}

/// The tolerance of one rounding to a form.
fn tolerance(form: WeightDtype) -> f64 {
    match form {
        WeightDtype::F32 => SAME_FORM_TOLERANCE,
        WeightDtype::F16 => 1e-2,
        WeightDtype::BF16 => 5e-2,
        WeightDtype::Q8_0 => 1e-1,
        WeightDtype::Q6K => 2e-1,
        WeightDtype::Q5K => 3e-1,
        WeightDtype::Q4_0 | WeightDtype::Q4K | WeightDtype::Nf4 => 5e-1,
    }
}

fn narrower(a: WeightDtype, b: WeightDtype) -> WeightDtype {
    if tolerance(b) > tolerance(a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(form: WeightDtype) -> Forms {
        Forms([("a".to_owned(), form), ("b".to_owned(), WeightDtype::BF16)].into())
    }

    #[test]
    fn the_narrower_of_two_different_forms_decides() {
        let between = |a, b| tolerance_between(&forms(a), Some(&forms(b)));
        assert_eq!(between(WeightDtype::BF16, WeightDtype::BF16), 1e-4);
        assert_eq!(between(WeightDtype::F32, WeightDtype::F16), 1e-2);
        assert_eq!(between(WeightDtype::Q8_0, WeightDtype::BF16), 1e-1);
        assert_eq!(between(WeightDtype::BF16, WeightDtype::Q4K), 5e-1);
        assert_eq!(tolerance_between(&forms(WeightDtype::F32), None), 5e-2);
        assert_eq!(forms(WeightDtype::Q6K).narrowest(), WeightDtype::Q6K);
    }
}
