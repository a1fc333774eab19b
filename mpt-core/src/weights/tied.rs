//! Check of a redundant tied head: it must equal the embedding.

use std::path::Path;

use crate::error::{Result, damaged};
use crate::storage::StoredTensor;

/// Refuses a head that differs from the embedding. `path` is the model.
///
/// # Errors
/// [`Error::WeightsFile`](crate::Error::WeightsFile) naming the key to set.
pub(super) fn check_head(path: &Path, head: &StoredTensor, embedding: &StoredTensor) -> Result<()> {
    if are_equal(head, embedding) {
        return Ok(());
    }
    let found = "`lm_head.weight` differs from `transformer.wte.weight`, and `tie_word_embeddings` is true";
    let expected = "one matrix; set `tie_word_embeddings` to false in config.json if the head is the model's own, else \
                    remove it from the weights";
    Err(damaged(path, found, expected))
}

fn are_equal(a: &StoredTensor, b: &StoredTensor) -> bool {
    if a.shape() != b.shape() {
        return false;
    }
    if a.dtype() == b.dtype() {
        return a.bytes() == b.bytes();
    }
    let (mut left, mut right) = (vec![0f32; a.row_len()], vec![0f32; a.row_len()]);
    (0..a.num_rows()).all(|row| {
        a.dequantize_rows(row..row + 1, &mut left);
        b.dequantize_rows(row..row + 1, &mut right);
        left == right
    })
}
