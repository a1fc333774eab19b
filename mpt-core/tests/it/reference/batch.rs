//! Rows of tokens, and the visibility of each token to the later ones.

use mpt_core::{AttnMask, IGNORE_LABEL};

/// Equally long rows of token ids.
pub(crate) struct Batch {
    pub(crate) rows: Vec<Vec<u32>>,
    pub(crate) view: View,
}

/// Visibility rule within a row, besides causality.
pub(crate) enum View {
    /// All earlier tokens are visible.
    Causal,
    /// Padding is hidden: 0 marks it, `[b, s]`.
    Padded(Vec<u8>),
    /// Other documents are hidden: document id of each token, `[b, s]`.
    Documents(Vec<u32>),
}

impl Batch {
    pub(crate) fn dims(&self) -> (usize, usize) {
        (self.rows.len(), self.rows[0].len())
    }

    /// The rule as an `AttnMask`.
    pub(crate) fn mask(&self) -> AttnMask {
        let (b, s) = self.dims();
        match &self.view {
            View::Causal => AttnMask::causal(b, s),
            View::Padded(real) => AttnMask::padded(real, b, s).expect("padding at the ends of rows"),
            View::Documents(documents) => AttnMask::documents(documents, b, s).expect("contiguous documents"),
        }
    }

    /// Whether a token is not padding.
    pub(crate) fn is_real(&self, row: usize, token: usize) -> bool {
        match &self.view {
            View::Padded(real) => real[row * self.dims().1 + token] == 1,
            _ => true,
        }
    }

    /// Whether token `i` of a row attends to token `j`. Padding attends to itself, which keeps its softmax defined.
    pub(crate) fn sees(&self, row: usize, i: usize, j: usize) -> bool {
        let at = row * self.dims().1;
        let hidden = match &self.view {
            View::Causal => false,
            View::Padded(real) => real[at + j] == 0 && i != j,
            View::Documents(documents) => documents[at + i] != documents[at + j],
        };
        j <= i && !hidden
    }

    /// Positions, `[b * s]`: number of visible earlier tokens that are not padding.
    pub(crate) fn positions(&self) -> Vec<u32> {
        let (b, s) = self.dims();
        let position = |row, token| {
            let counts = |&earlier: &usize| self.is_real(row, earlier) && self.sees(row, token, earlier);
            let before = (0..token).filter(counts).count();
            // right padding has the position of the last token
            if self.is_real(row, token) { before as u32 } else { before.saturating_sub(1) as u32 }
        };
        (0..b).flat_map(|row| (0..s).map(move |token| position(row, token))).collect()
    }

    /// Number of tokens of a row that are not padding.
    pub(crate) fn length(&self, row: usize) -> usize {
        (0..self.dims().1).filter(|&token| self.is_real(row, token)).count()
    }

    /// Next token of each token, ignored when either is padding.
    pub(crate) fn labels(&self) -> Vec<u32> {
        let (b, s) = self.dims();
        let label = |row: usize, token: usize| {
            let next = token + 1;
            let counts = next < s && self.is_real(row, token) && self.is_real(row, next);
            if counts { self.rows[row][next] } else { IGNORE_LABEL }
        };
        (0..b).flat_map(|row| (0..s).map(move |token| label(row, token))).collect()
    }
}
