//! Attention mask: one contiguous range of visible keys per query.
//!
//! It costs one number per token, never a `[seq, seq]` table.

use std::sync::Arc;

use crate::error::{Error, Result};

/// Attention mask of a batch `[batch, seq]`: the visible keys of a query are one contiguous range that ends at the query.
///
/// Causal attention, left padding, packed documents and sliding windows are all of this kind.
#[derive(Clone, Debug)]
pub struct AttnMask {
    batch: usize,
    seq: usize,
    /// First visible key of each query, `[batch, seq]`; `None` for key 0.
    first_key: Option<Arc<[u32]>>,
    /// Valid tokens of each row, `[batch]`; `None` when nothing is padding.
    valid: Option<Arc<[ValidTokens]>>,
}

/// Range of the tokens of a row that are not padding.
#[derive(Clone, Copy, Debug)]
struct ValidTokens {
    /// Number of padding tokens before it.
    left: u32,
    /// Number of valid tokens.
    tokens: u32,
}

impl AttnMask {
    /// Causal mask: a token attends to itself and all tokens before it.
    pub fn causal(batch: usize, seq: usize) -> Self {
        Self { batch, seq, first_key: None, valid: None }
    }

    /// Causal mask of padded rows: `mask` `[batch, seq]` is 1 for tokens and 0 for padding, on the left or the right. A row may
    /// be all padding.
    ///
    /// # Errors
    /// [`Error::Mask`] when the length is not batch x seq, a value is neither 0 nor 1, or padding lies between tokens.
    pub fn padded(mask: &[u8], batch: usize, seq: usize) -> Result<Self> {
        expect_len("mask", mask.len(), batch, seq)?;
        let valid: Vec<ValidTokens> = mask
            .chunks_exact(seq)
            .enumerate()
            .map(|(row, mask)| valid_tokens(row, mask))
            .collect::<Result<_>>()?;
        let first = |token: usize| valid[token / seq].left.min((token % seq) as u32);
        let first_key = (0..mask.len()).map(first).collect();
        Ok(Self { batch, seq, first_key: Some(first_key), valid: Some(valid.into()) })
    }

    /// Causal mask of packed documents: a token attends to its own document only. `documents` `[batch, seq]` has the document
    /// id of each token; positions restart with each document.
    ///
    /// # Errors
    /// [`Error::Mask`] when the length is not batch x seq or a document is not contiguous.
    pub fn documents(documents: &[u32], batch: usize, seq: usize) -> Result<Self> {
        expect_len("documents", documents.len(), batch, seq)?;
        let mut first_key = Vec::with_capacity(documents.len());
        for (row, row_documents) in documents.chunks_exact(seq).enumerate() {
            let mut ended = std::collections::BTreeSet::new();
            let mut first = 0;
            for (i, &document) in row_documents.iter().enumerate() {
                if i > 0 && document != row_documents[i - 1] {
                    ended.insert(row_documents[i - 1]);
                    first = i as u32;
                }
                if ended.contains(&document) {
                    return Err(not_contiguous("documents", row, i));
                }
                first_key.push(first);
            }
        }
        Ok(Self { batch, seq, first_key: Some(first_key.into()), valid: None })
    }

    /// Mask of one row, as a batch of one.
    ///
    /// # Panics
    /// When `row` is out of range.
    pub fn row(&self, row: usize) -> Self {
        assert!(row < self.batch, "row {row} of {}", self.batch);
        let tokens = row * self.seq..(row + 1) * self.seq;
        let first_key = self.first_key.as_ref().map(|first| first[tokens].into());
        let valid = self.valid.as_ref().map(|valid| [valid[row]].into());
        Self { batch: 1, seq: self.seq, first_key, valid }
    }

    /// `(batch, seq)`.
    pub fn dims(&self) -> (usize, usize) {
        (self.batch, self.seq)
    }

    /// First visible key of each query, `[batch, seq]`, under a sliding window of `window` keys before its own. `None` when it
    /// is key 0 throughout.
    pub(crate) fn first_keys(&self, window: Option<usize>) -> Option<Arc<[u32]>> {
        let Some(window) = window else { return self.first_key.clone() };
        let first = |token: usize| {
            let masked = self.first_key.as_ref().map_or(0, |first| first[token]);
            masked.max((token % self.seq).saturating_sub(window) as u32)
        };
        Some((0..self.batch * self.seq).map(first).collect())
    }

    /// Number of valid tokens of each row, `[batch]`.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        let tokens = |row: usize| self.valid.as_ref().map_or(self.seq, |valid| valid[row].tokens as usize);
        (0..self.batch).map(tokens).collect()
    }

    /// Position of each token, `[batch, seq]`, from the first valid token of its row or the first token of its document.
    /// Right padding has the position of the last valid token.
    pub(crate) fn positions(&self) -> Vec<u32> {
        let lengths = self.lengths();
        let position = |token: usize| {
            let first = self.first_key.as_ref().map_or(0, |first| first[token]);
            let last = lengths[token / self.seq].saturating_sub(1) as u32;
            ((token % self.seq) as u32 - first).min(last)
        };
        (0..self.batch * self.seq).map(position).collect()
    }
}

fn expect_len(argument: &'static str, actual: usize, batch: usize, seq: usize) -> Result<()> {
    if actual == batch * seq && seq > 0 {
        return Ok(());
    }
    let expected = format!("{batch} x {seq} values, at least one a row");
    Err(Error::Mask { argument, actual: format!("{actual} values"), expected })
}

/// Valid tokens of a row; a row of padding only is right-padded.
fn valid_tokens(row: usize, mask: &[u8]) -> Result<ValidTokens> {
    if let Some(value) = mask.iter().find(|&&value| value > 1) {
        let actual = format!("{value} in row {row}");
        return Err(Error::Mask { argument: "mask", actual, expected: "0 or 1".to_owned() });
    }
    let left = mask.iter().take_while(|&&valid| valid == 0).count();
    let tokens = mask[left..].iter().take_while(|&&valid| valid == 1).count();
    match mask[left + tokens..].iter().position(|&valid| valid == 1) {
        Some(after) => Err(not_contiguous("mask", row, left + tokens + after)),
        None if tokens == 0 => Ok(ValidTokens { left: 0, tokens: 0 }),
        None => Ok(ValidTokens { left: left as u32, tokens: tokens as u32 }),
    }
}

fn not_contiguous(argument: &'static str, row: usize, at: usize) -> Error {
    let actual = format!("resumed at token {at} of row {row} after a gap");
    Error::Mask { argument, actual, expected: "one contiguous run".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_on_the_left_hides_keys_and_shifts_positions() {
        let mask = AttnMask::padded(&[0, 0, 1, 1, 1, 1, 1, 0], 2, 4).unwrap();
        assert_eq!(mask.first_keys(None).unwrap().to_vec(), [0, 1, 2, 2, 0, 0, 0, 0]);
        assert_eq!(mask.positions(), [0, 0, 0, 1, 0, 1, 2, 2]);
        assert_eq!(mask.lengths(), [2, 3]);
    }

    #[test]
    fn a_row_of_padding_alone_has_no_length() {
        let mask = AttnMask::padded(&[1, 1, 0, 0, 0, 0], 2, 3).unwrap();
        assert_eq!(mask.lengths(), [2, 0]);
        assert_eq!(mask.positions(), [0, 1, 1, 0, 0, 0]);
    }

    #[test]
    fn a_row_is_a_batch_of_its_own() {
        let mask = AttnMask::padded(&[0, 0, 1, 1, 1, 1, 1, 0], 2, 4).unwrap();
        let first = mask.row(0);
        assert_eq!(first.first_keys(None).unwrap().to_vec(), [0, 1, 2, 2]);
        assert_eq!((first.dims(), first.positions()), ((1, 4), vec![0, 0, 0, 1]));
    }

    #[test]
    fn documents_and_windows_bound_the_range() {
        let mask = AttnMask::documents(&[5, 5, 6, 6, 6], 1, 5).unwrap();
        assert_eq!(mask.first_keys(None).unwrap().to_vec(), [0, 0, 2, 2, 2]);
        assert_eq!(mask.first_keys(Some(1)).unwrap().to_vec(), [0, 0, 2, 2, 3]);
        assert_eq!(mask.positions(), [0, 1, 0, 1, 2]);
        assert_eq!(AttnMask::causal(1, 4).first_keys(Some(2)).unwrap().to_vec(), [0, 0, 0, 1]);
    }

    #[test]
    fn gaps_are_refused() {
        assert!(AttnMask::padded(&[1, 0, 1], 1, 3).unwrap_err().to_string().contains("token 2 of row 0"));
        assert!(AttnMask::padded(&[1, 2], 1, 2).is_err());
        assert!(AttnMask::documents(&[1, 2, 1], 1, 3).is_err());
        assert!(AttnMask::documents(&[1, 2], 1, 3).is_err());
    }
}
