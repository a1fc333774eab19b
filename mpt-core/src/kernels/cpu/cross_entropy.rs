//! Cross-entropy of a row of logits, in place: the logits become their gradient.

use super::dispatch::for_each_level;
use super::math::{exp_shifted, max};

for_each_level! {
    /// Returns -log softmax(logits)`[label]` and turns `logits` into softmax(logits) - onehot(label).
    ///
    /// A NaN or an infinity among the logits makes the result NaN.
    pub(crate) fn loss_and_gradient(logits: &mut [f32], label: usize) -> f32 {
        let target = logits[label];
        let top = max(logits);
        let total = exp_shifted(logits, top);
        let loss = total.ln() + top - target;
        let scale = 1.0 / total;
        for value in logits.iter_mut() {
            *value *= scale;
        }
        logits[label] -= 1.0;
        // `max` ignores NaN; the sum does not
        if total.is_finite() { loss } else { f32::NAN }
    }

    /// Returns -log softmax(logits)`[label]`; `logits` is left with unnormalized probabilities.
    pub(crate) fn loss(logits: &mut [f32], label: usize) -> f32 {
        let target = logits[label];
        let top = max(logits);
        let total = exp_shifted(logits, top);
        if total.is_finite() { total.ln() + top - target } else { f32::NAN }
    }
}
