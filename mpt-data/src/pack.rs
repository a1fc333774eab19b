//! Packing: documents, one after another, cut into rows of equal length, with the starts of documents.

use crate::document_starts::DocumentStarts;
use crate::error::Result;

/// Row of packed tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedRow<'a> {
    /// Tokens, `[row_tokens]`.
    pub tokens: &'a [u32],
    /// Ordinal of the document of token 0.
    pub document: u64,
    /// First tokens of documents.
    pub starts: DocumentStarts<'a>,
}

/// Packer of documents into rows.
#[derive(Debug)]
pub struct Packer {
    row_tokens: usize,
    tokens: Vec<u32>,
    starts: Vec<u8>,
    document: u64,
}

impl Packer {
    /// Packer for rows of `row_tokens` tokens, 1 or more.
    pub fn new(row_tokens: usize) -> Self {
        assert!(row_tokens > 0, "rows hold tokens");
        let starts = vec![0; row_tokens.div_ceil(8)];
        Self { row_tokens, tokens: Vec::with_capacity(row_tokens), starts, document: 0 }
    }

    /// Appends a document, and calls `on_row` with each full row.
    ///
    /// # Errors
    /// Those of `on_row`.
    pub fn push(
        &mut self,
        document: u64,
        tokens: &[u32],
        on_row: impl FnMut(PackedRow<'_>) -> Result<()>,
    ) -> Result<()> {
        if !tokens.is_empty() {
            let at = self.tokens.len();
            self.starts[at / 8] |= 1 << (at % 8);
        }
        self.extend(document, tokens, on_row)
    }

    /// Appends tokens to the document that was pushed last.
    ///
    /// # Errors
    /// Those of `on_row`.
    pub fn extend(
        &mut self,
        document: u64,
        tokens: &[u32],
        mut on_row: impl FnMut(PackedRow<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut rest = tokens;
        while !rest.is_empty() {
            if self.tokens.is_empty() {
                self.document = document;
            }
            let (now, later) = rest.split_at(rest.len().min(self.row_tokens - self.tokens.len()));
            self.tokens.extend_from_slice(now);
            rest = later;
            if self.tokens.len() == self.row_tokens {
                let starts = DocumentStarts::new(&self.starts);
                on_row(PackedRow { tokens: &self.tokens, document: self.document, starts })?;
                self.tokens.clear();
                self.starts.fill(0);
            }
        }
        Ok(())
    }

    /// Tokens that do not fill a row.
    pub fn tail(&self) -> &[u32] {
        &self.tokens
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// All rows and the tail are all documents; starts and first documents are exact even if token ids repeat.
        #[test]
        fn packing_keeps_every_token_and_every_boundary(
            lengths in prop::collection::vec(1usize..40, 0..60),
            row_tokens in 1usize..70,
        ) {
            let mut packer = Packer::new(row_tokens);
            let (mut stream, mut first_of, mut owner) = (Vec::new(), Vec::new(), Vec::new());
            let mut rows = Vec::new();
            for (index, &length) in lengths.iter().enumerate() {
                let document = 100 + index as u64;
                let tokens: Vec<_> = (0..length as u32).map(|at| at % 3).collect();
                first_of.extend((0..length).map(|at| at == 0));
                owner.extend(std::iter::repeat_n(document, length));
                stream.extend_from_slice(&tokens);
                let mut keep = |row: PackedRow<'_>| {
                    rows.push((row.tokens.to_vec(), row.document, row.starts.bitmap().to_vec()));
                    Ok(())
                };
                packer.push(document, &tokens, &mut keep).expect("kept");
            }
            let packed: Vec<_> = rows.iter().flat_map(|row| &row.0).chain(packer.tail()).copied().collect();
            prop_assert_eq!(&packed, &stream);
            prop_assert!(packer.tail().len() < row_tokens);
            for (index, (tokens, document, starts)) in rows.iter().enumerate() {
                prop_assert_eq!(tokens.len(), row_tokens);
                prop_assert_eq!(*document, owner[index * row_tokens]);
                for at in 0..row_tokens {
                    prop_assert_eq!(DocumentStarts::new(starts).contains(at), first_of[index * row_tokens + at]);
                }
            }
        }
    }
}
