//! Which keys a query sees, and ALiBi's slopes.

use std::sync::Arc;

use crate::error::{Error, Result};

/// Which keys each query of a batch sees: one contiguous range that ends at the query itself.
///
/// Padding on the left, packed documents and sliding windows all are such ranges, so a mask costs one number per
/// token and never a `[seq, seq]` table.
#[derive(Clone, Debug)]
pub struct AttnMask {
    batch: usize,
    seq: usize,
    /// First visible key, `[batch, seq]`; all see from key 0 where absent.
    first_key: Option<Arc<[u32]>>,
    /// Where each row's real tokens lie; all are real where absent.
    real: Option<Arc<[Real]>>,
}

/// The real tokens of a row with padding around them.
#[derive(Clone, Copy, Debug)]
struct Real {
    /// Tokens of padding before the first.
    left: u32,
    /// How many there are.
    tokens: u32,
}

impl AttnMask {
    /// Every token sees itself and all tokens before it.
    pub fn causal(batch: usize, seq: usize) -> Self {
        Self { batch, seq, first_key: None, real: None }
    }

    /// Rows of real tokens (1) with padding (0) on the left or on the right; `mask` is `[batch, seq]`.
    /// A row may be padding alone.
    ///
    /// # Errors
    /// [`Error::Mask`] when the length is not batch x seq, a value is neither 0 nor 1, or padding lies between tokens.
    pub fn padded(mask: &[u8], batch: usize, seq: usize) -> Result<Self> {
        expect_len("mask", mask.len(), batch, seq)?;
        let real: Vec<Real> = mask
            .chunks_exact(seq)
            .enumerate()
            .map(|(row, mask)| real_tokens(row, mask))
            .collect::<Result<_>>()?;
        let first = |token: usize| real[token / seq].left.min((token % seq) as u32);
        let first_key = (0..mask.len()).map(first).collect();
        Ok(Self { batch, seq, first_key: Some(first_key), real: Some(real.into()) })
    }

    /// A token sees only earlier tokens of its own document; `documents` `[batch, seq]` numbers them along each row, and
    /// positions are counted from the first token of each.
    ///
    /// # Errors
    /// [`Error::Mask`] when the length is not batch x seq or a document is not contiguous.
    pub fn documents(documents: &[u32], batch: usize, seq: usize) -> Result<Self> {
        expect_len("documents", documents.len(), batch, seq)?;
        let mut first_key = Vec::with_capacity(documents.len());
        for (row, of_row) in documents.chunks_exact(seq).enumerate() {
            let mut ended = std::collections::BTreeSet::new();
            let mut first = 0;
            for (i, &document) in of_row.iter().enumerate() {
                if i > 0 && document != of_row[i - 1] {
                    ended.insert(of_row[i - 1]);
                    first = i as u32;
                }
                if ended.contains(&document) {
                    return Err(not_contiguous("documents", row, i));
                }
                first_key.push(first);
            }
        }
        Ok(Self { batch, seq, first_key: Some(first_key.into()), real: None })
    }

    /// The part of one row, as a batch of its own.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> Self {
        assert!(row < self.batch, "row {row} of {}", self.batch);
        let tokens = row * self.seq..(row + 1) * self.seq;
        let first_key = self.first_key.as_ref().map(|first| first[tokens].into());
        let real = self.real.as_ref().map(|real| [real[row]].into());
        Self { batch: 1, seq: self.seq, first_key, real }
    }

    /// Rows and tokens per row.
    pub fn dims(&self) -> (usize, usize) {
        (self.batch, self.seq)
    }

    /// First visible key of every query, `[batch, seq]`, under a sliding window of `window` keys before the query's own.
    /// `None` when every query sees from key 0.
    pub(crate) fn first_keys(&self, window: Option<usize>) -> Option<Arc<[u32]>> {
        let Some(window) = window else { return self.first_key.clone() };
        let first = |token: usize| {
            let masked = self.first_key.as_ref().map_or(0, |first| first[token]);
            masked.max((token % self.seq).saturating_sub(window) as u32)
        };
        Some((0..self.batch * self.seq).map(first).collect())
    }

    /// Real tokens of each row, `[batch]`.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        let tokens = |row: usize| self.real.as_ref().map_or(self.seq, |real| real[row].tokens as usize);
        (0..self.batch).map(tokens).collect()
    }

    /// Position of every token, `[batch, seq]`, counted from its row's first real token or its document's first token;
    /// padding behind the last real token has the position of that.
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

/// A row of padding alone has it on the right.
fn real_tokens(row: usize, mask: &[u8]) -> Result<Real> {
    if let Some(value) = mask.iter().find(|&&value| value > 1) {
        let actual = format!("{value} in row {row}");
        return Err(Error::Mask { argument: "mask", actual, expected: "0 or 1".to_owned() });
    }
    let left = mask.iter().take_while(|&&real| real == 0).count();
    let tokens = mask[left..].iter().take_while(|&&real| real == 1).count();
    match mask[left + tokens..].iter().position(|&real| real == 1) {
        Some(after) => Err(not_contiguous("mask", row, left + tokens + after)),
        None if tokens == 0 => Ok(Real { left: 0, tokens: 0 }),
        None => Ok(Real { left: left as u32, tokens: tokens as u32 }),
    }
}

fn not_contiguous(argument: &'static str, row: usize, at: usize) -> Error {
    let actual = format!("resumed at token {at} of row {row} after a gap");
    Error::Mask { argument, actual, expected: "one contiguous run".to_owned() }
}

/// ALiBi's slopes, one per head: 2^(-i * bias_max / n) for i = 1..n with n the next power of two, and where the head
/// count is none, first every second of them from the second, then every second from the first.
///
/// Source: Press et al. 2022, section 3; llm-foundry `layers/attention.py`, `gen_slopes`.
pub fn alibi_slopes(n_heads: usize, bias_max: f64) -> Vec<f32> {
    let n = n_heads.next_power_of_two();
    let slope = |i: usize| {
        let exponent = i as f32 * (bias_max / n as f64) as f32;
        1.0 / 2f32.powf(exponent)
    };
    if n == n_heads {
        return (1..=n).map(slope).collect();
    }
    let (odd, even) = ((1..=n).step_by(2), (2..=n).step_by(2));
    even.chain(odd).take(n_heads).map(slope).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_interleave_when_heads_are_no_power_of_two() {
        assert_eq!(alibi_slopes(4, 8.0), [0.25, 0.0625, 0.015_625, 0.003_906_25]);
        assert_eq!(alibi_slopes(3, 8.0), [0.0625, 0.003_906_25, 0.25]);
    }

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
