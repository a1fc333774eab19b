//! Rows of tokens, and which of them see which.

use mpt_core::{AttnMask, IGNORE_LABEL};

/// Equally long rows of token ids.
pub(crate) struct Batch {
    pub(crate) rows: Vec<Vec<u32>>,
    pub(crate) view: View,
}

/// What hides one token of a row from a later one.
pub(crate) enum View {
    /// Nothing.
    Causal,
    /// Being padding: 0 for every token that is, `[b, s]`.
    Padded(Vec<u8>),
    /// Belonging to another document: its number for every token, `[b, s]`.
    Documents(Vec<u32>),
}

impl Batch {
    pub(crate) fn dims(&self) -> (usize, usize) {
        (self.rows.len(), self.rows[0].len())
    }

    /// The same view as the crate takes it.
    pub(crate) fn mask(&self) -> AttnMask {
        let (b, s) = self.dims();
        match &self.view {
            View::Causal => AttnMask::causal(b, s),
            View::Padded(real) => AttnMask::padded(real, b, s).expect("padding at the ends of rows"),
            View::Documents(documents) => AttnMask::documents(documents, b, s).expect("contiguous documents"),
        }
    }

    /// Whether the token is none of padding.
    pub(crate) fn is_real(&self, row: usize, token: usize) -> bool {
        match &self.view {
            View::Padded(real) => real[row * self.dims().1 + token] == 1,
            _ => true,
        }
    }

    /// Whether token `i` of a row sees token `j`. Padding sees itself, so that its softmax is one; nobody reads it.
    pub(crate) fn sees(&self, row: usize, i: usize, j: usize) -> bool {
        let at = row * self.dims().1;
        let hidden = match &self.view {
            View::Causal => false,
            View::Padded(real) => real[at + j] == 0 && i != j,
            View::Documents(documents) => documents[at + i] != documents[at + j],
        };
        j <= i && !hidden
    }

    /// Places in each row, `[b * s]`: the count of tokens before one that it sees, padding left out.
    pub(crate) fn positions(&self) -> Vec<u32> {
        let (b, s) = self.dims();
        let position = |row, token| {
            let counts = |&earlier: &usize| self.is_real(row, earlier) && self.sees(row, token, earlier);
            let before = (0..token).filter(counts).count();
            // the first of padding behind a row has the place of the last token
            if self.is_real(row, token) { before as u32 } else { before.saturating_sub(1) as u32 }
        };
        (0..b).flat_map(|row| (0..s).map(move |token| position(row, token))).collect()
    }

    /// Tokens of a row that are none of padding.
    pub(crate) fn length(&self, row: usize) -> usize {
        (0..self.dims().1).filter(|&token| self.is_real(row, token)).count()
    }

    /// The next token of every token, where both are real.
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
