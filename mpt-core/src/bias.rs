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
    /// Tokens of padding before each row's first real token; none where absent.
    left_padding: Option<Arc<[u32]>>,
}

impl AttnMask {
    /// Every token sees itself and all tokens before it. In a batch that continues a cache, all cached tokens too.
    pub fn causal(batch: usize, seq: usize) -> Self {
        Self { batch, seq, first_key: None, left_padding: None }
    }

    /// Rows of real tokens (1) with padding (0) on the left or on the right; `mask` is `[batch, seq]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the length is not batch x seq, a value is neither 0 nor 1, or padding lies between tokens.
    pub fn padded(mask: &[u8], batch: usize, seq: usize) -> Result<Self> {
        expect_len("mask", mask.len(), batch, seq)?;
        let left: Vec<u32> = mask
            .chunks_exact(seq)
            .enumerate()
            .map(|(row, mask)| left_padding(row, mask))
            .collect::<Result<_>>()?;
        let first = |token: usize| left[token / seq].min((token % seq) as u32);
        let first_key = (0..mask.len()).map(first).collect();
        Ok(Self { batch, seq, first_key: Some(first_key), left_padding: Some(left.into()) })
    }

    /// A token sees only earlier tokens of its own document; `documents` `[batch, seq]` numbers them along each row.
    ///
    /// # Errors
    /// [`Error::Shape`] when the length is not batch x seq or a document is not contiguous.
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
        Ok(Self { batch, seq, first_key: Some(first_key.into()), left_padding: None })
    }

    /// The part of one row, as a batch of its own.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> Self {
        assert!(row < self.batch, "row {row} of {}", self.batch);
        let tokens = row * self.seq..(row + 1) * self.seq;
        let first_key = self.first_key.as_ref().map(|first| first[tokens].into());
        let left_padding = self.left_padding.as_ref().map(|left| [left[row]].into());
        Self { batch: 1, seq: self.seq, first_key, left_padding }
    }

    /// Rows and tokens per row.
    pub fn dims(&self) -> (usize, usize) {
        (self.batch, self.seq)
    }

    /// First visible key of every query, `[batch, seq]`, under a sliding window of `window` keys before the query's own;
    /// `start` holds each row's number of cached tokens. `None` when every query sees from key 0.
    pub(crate) fn first_keys(&self, window: Option<usize>, start: &[usize]) -> Option<Arc<[u32]>> {
        let Some(window) = window else { return self.first_key.clone() };
        let first = |token: usize| {
            let position = start[token / self.seq] + token % self.seq;
            let masked = self.first_key.as_ref().map_or(0, |first| first[token]);
            masked.max(position.saturating_sub(window) as u32)
        };
        Some((0..self.batch * self.seq).map(first).collect())
    }

    /// Tokens of each row after this batch, padding on the left left out.
    pub(crate) fn lengths(&self, start: &[usize]) -> Vec<usize> {
        let paddings = self.paddings().into_iter();
        paddings.zip(start).map(|(padding, start)| start + self.seq - padding as usize).collect()
    }

    /// Tokens of padding before each row's first real token.
    pub(crate) fn paddings(&self) -> Vec<u32> {
        self.left_padding.as_ref().map_or_else(|| vec![0; self.batch], |left| left.to_vec())
    }

    /// Position of every token, `[batch, seq]`, counted from its row's first real token.
    pub(crate) fn positions(&self, start: &[usize]) -> Vec<u32> {
        let position = |token: usize| {
            let padding = self.left_padding.as_ref().map_or(0, |left| left[token / self.seq]);
            ((start[token / self.seq] + token % self.seq) as u32).saturating_sub(padding)
        };
        (0..self.batch * self.seq).map(position).collect()
    }
}

fn expect_len(argument: &'static str, actual: usize, batch: usize, seq: usize) -> Result<()> {
    if actual == batch * seq && seq > 0 {
        return Ok(());
    }
    let expected = format!("{batch} x {seq} values, at least one a row");
    Err(Error::Shape { op: "attention mask", argument, actual: format!("{actual} values"), expected })
}

fn left_padding(row: usize, mask: &[u8]) -> Result<u32> {
    if let Some(value) = mask.iter().find(|&&value| value > 1) {
        let actual = format!("{value} in row {row}");
        return Err(Error::Shape {
            op: "attention mask",
            argument: "mask",
            actual,
            expected: "0 or 1".to_owned(),
        });
    }
    let left = mask.iter().take_while(|&&real| real == 0).count();
    let tokens = mask[left..].iter().take_while(|&&real| real == 1).count();
    match mask[left + tokens..].iter().position(|&real| real == 1) {
        Some(after) => Err(not_contiguous("mask", row, left + tokens + after)),
        None => Ok(left as u32),
    }
}

fn not_contiguous(argument: &'static str, row: usize, at: usize) -> Error {
    let actual = format!("resumed at token {at} of row {row} after a gap");
    Error::Shape { op: "attention mask", argument, actual, expected: "one contiguous run".to_owned() }
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
        assert_eq!(mask.first_keys(None, &[0, 0]).unwrap().to_vec(), [0, 1, 2, 2, 0, 0, 0, 0]);
        assert_eq!(mask.positions(&[0, 0]), [0, 0, 0, 1, 0, 1, 2, 3]);
        let first = mask.row(0);
        assert_eq!(first.first_keys(None, &[0]).unwrap().to_vec(), [0, 1, 2, 2]);
        assert_eq!((first.dims(), first.positions(&[0])), ((1, 4), vec![0, 0, 0, 1]));
    }

    #[test]
    fn documents_and_windows_bound_the_range() {
        let mask = AttnMask::documents(&[5, 5, 6, 6, 6], 1, 5).unwrap();
        assert_eq!(mask.first_keys(None, &[0]).unwrap().to_vec(), [0, 0, 2, 2, 2]);
        assert_eq!(mask.first_keys(Some(1), &[0]).unwrap().to_vec(), [0, 0, 2, 2, 3]);
        assert_eq!(AttnMask::causal(1, 2).first_keys(Some(3), &[10]).unwrap().to_vec(), [7, 8]);
    }

    #[test]
    fn gaps_are_refused() {
        assert!(AttnMask::padded(&[1, 0, 1], 1, 3).unwrap_err().to_string().contains("token 2 of row 0"));
        assert!(AttnMask::padded(&[1, 2], 1, 2).is_err());
        assert!(AttnMask::documents(&[1, 2, 1], 1, 3).is_err());
        assert!(AttnMask::documents(&[1, 2], 1, 3).is_err());
    }
}
