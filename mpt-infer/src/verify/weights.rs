//! Comparison of two models' matrices: where their dtypes differ, rounding must explain the difference.

use mpt_core::{WeightDtype, Weights};

use super::Check;
use super::limits_by_dtype::narrower;
use crate::error::Result;

/// Checks that every matrix whose dtype differs between `model` and `against` is equal up to the rounding of the narrower
/// dtype. It finds broken layers of a quantized model, however little they change the logits.
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
        let dtypes = (model.loaded_dtype(&name)?, against.loaded_dtype(&name)?);
        if dtypes.0 == dtypes.1 {
            continue;
        }
        let (found, expected) = (model.tensor(&name, Some(&shape))?, against.tensor(&name, Some(&shape))?);
        let dtype = narrower(dtypes.0, dtypes.1);
        let difference = Difference { error: found.relative_rms_error(&expected), dtype, name };
        compared += 1;
        if worst.as_ref().is_none_or(|worst: &Difference| difference.share() > worst.share()) {
            worst = Some(difference);
        }
    }
    Ok(check(compared, worst))
}

/// Check over `compared` matrices, of which `worst` has the largest share of its allowed error.
fn check(compared: usize, worst: Option<Difference>) -> Check {
    let name = "matrices are the other model's, rounded";
    let Some(Difference { name: matrix, dtype, error }) = &worst else {
        return Check { name, passed: true, detail: "none has another form".to_owned() };
    };
    let (limit, passed) = (rounding_error(*dtype), worst.as_ref().is_some_and(|worst| worst.share() <= 1.0));
    let detail = match passed {
        true => format!("{compared} of another form, relative difference {error:.1e} at most"),
        false => format!(
            "`{matrix}` has the relative difference {error:.3e}, and rounding to {dtype} gives {limit:.1e} at most"
        ),
    };
    Check { name, passed, detail }
}

/// Difference of a matrix from its reference.
struct Difference {
    name: String,
    /// Narrower dtype of the two.
    dtype: WeightDtype,
    /// RMS of the difference, relative to the RMS of the reference.
    error: f64,
}

impl Difference {
    /// Error as a share of the allowed one.
    fn share(&self) -> f64 {
        self.error / rounding_error(self.dtype)
    }
}

/// Largest relative RMS error of rounding a matrix to `dtype`.
///
/// For bf16, q8_0 and q4_0 it is the worst case: every value of a block is off by half a step. The others are three times
/// the error on normally distributed values; f16 allows for values below its smallest normal number.
fn rounding_error(dtype: WeightDtype) -> f64 {
    match dtype {
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
