//! How far the matrices of two models are apart: where their forms differ, no further than rounding takes them.

use mpt_core::{WeightDtype, Weights};

use super::Check;
use super::forms::narrower;
use crate::error::Result;

/// Checks that every matrix which `model` and `against` hold in different forms is the same but for the rounding of the
/// narrower form. Broken layers of a quantized model show here, however little they change the logits.
///
/// # Errors
/// Those of the weights.
pub fn compare_weights(model: &Weights, against: &Weights) -> Result<Check> {
    let (mut compared, mut worst) = (0, None);
    let others = against.config().parameter_shapes();
    for (name, shape) in model.config().parameter_shapes() {
        if shape.len() < 2 || others.get(&name) != Some(&shape) {
            continue;
        }
        let forms = (model.loaded_dtype(&name)?, against.loaded_dtype(&name)?);
        if forms.0 == forms.1 {
            continue;
        }
        let (found, expected) = (model.tensor(&name, Some(&shape))?, against.tensor(&name, Some(&shape))?);
        let form = narrower(forms.0, forms.1);
        let difference = Difference { error: found.relative_rms_error(&expected), form, name };
        compared += 1;
        if worst.as_ref().is_none_or(|worst: &Difference| difference.share() > worst.share()) {
            worst = Some(difference);
        }
    }
    Ok(check(compared, worst))
}

fn check(compared: usize, worst: Option<Difference>) -> Check {
    let name = "matrices are the other model's, rounded";
    let Some(Difference { name: matrix, form, error }) = &worst else {
        return Check { name, passed: true, detail: "none has another form".to_owned() };
    };
    let (limit, passed) = (rounding(*form), worst.as_ref().is_some_and(|worst| worst.share() <= 1.0));
    let detail = match passed {
        true => format!("{compared} of another form, relative difference {error:.1e} at most"),
        false => format!(
            "`{matrix}` has the relative difference {error:.3e}, and rounding to {form} gives {limit:.1e} at most"
        ),
    };
    Check { name, passed, detail }
}

/// A matrix that was compared.
struct Difference {
    name: String,
    /// The narrower of the two forms.
    form: WeightDtype,
    /// Root mean square of the difference over that of the reference.
    error: f64,
}

impl Difference {
    /// The error as a share of what is allowed.
    fn share(&self) -> f64 {
        self.error / rounding(self.form)
    }
}

/// The largest relative difference that rounding a whole matrix to a form makes. For bf16, q8_0 and q4_0 no values give
/// more: half a step of every value of a block beside one that is as large as the block's step allows. The others are three
/// times what normal values give; f16 is wider for matrices of numbers too small for it.
fn rounding(form: WeightDtype) -> f64 {
    match form {
        WeightDtype::F32 => 1e-6,
        WeightDtype::F16 => 1e-2,
        WeightDtype::BF16 => 4e-3,
        WeightDtype::Q8_0 => 2.5e-2,
        WeightDtype::Q6K => 0.08,
        WeightDtype::Q5K => 0.15,
        WeightDtype::Q4_0 => 0.36,
        WeightDtype::Q4K | WeightDtype::Nf4 => 0.3,
    }
}
