//! Row of a shard: sizes, cells of the two columns, and checksum.

use xxhash_rust::xxh3::Xxh3;

use crate::document_starts::DocumentStarts;
use crate::pack::PackedRow;

/// Largest vocabulary whose ids fit two bytes.
const NARROW_VOCAB: usize = 1 << 16;

/// Sizes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowLayout {
    /// Tokens in a row.
    pub(crate) row_tokens: usize,
    /// Bytes in a token: 2 or 4.
    pub(crate) token_bytes: usize,
}

impl RowLayout {
    /// Layout for a vocabulary.
    pub(crate) fn new(row_tokens: usize, vocab_size: usize) -> Self {
        Self { row_tokens, token_bytes: token_bytes(vocab_size) }
    }

    /// Bytes of a row in `tokens`.
    pub(crate) fn tokens_width(self) -> usize {
        self.row_tokens * self.token_bytes
    }

    /// Bytes of a row in `meta`.
    pub(crate) fn meta_width(self) -> usize {
        16 + self.row_tokens.div_ceil(8)
    }
}

/// Bytes of a token id: 2 or 4.
fn token_bytes(vocab_size: usize) -> usize {
    if vocab_size <= NARROW_VOCAB { 2 } else { 4 }
}

/// Appends token ids in `width` bytes each, little-endian.
pub(crate) fn encode_tokens(tokens: &[u32], width: usize, out: &mut Vec<u8>) {
    if width == 2 {
        // Every id of the vocabulary fits.
        out.extend(tokens.iter().flat_map(|&id| (id as u16).to_le_bytes()));
    } else {
        out.extend(tokens.iter().flat_map(|id| id.to_le_bytes()));
    }
}

/// Appends the ids in `bytes`, which have `width` bytes each.
pub(crate) fn decode_tokens(bytes: &[u8], width: usize, out: &mut Vec<u32>) {
    if width == 2 {
        let (ids, _) = bytes.as_chunks::<2>();
        out.extend(ids.iter().map(|&id| u32::from(u16::from_le_bytes(id))));
    } else {
        let (ids, _) = bytes.as_chunks::<4>();
        out.extend(ids.iter().map(|&id| u32::from_le_bytes(id)));
    }
}

/// Cells of a row in the two columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowBytes<'a> {
    /// Cell of `tokens`.
    pub(crate) tokens: &'a [u8],
    /// Cell of `meta` without the checksum.
    rest: &'a [u8],
}

impl RowBytes<'_> {
    /// Ordinal of the document of token 0.
    pub(crate) fn document(&self) -> u64 {
        u64_at(self.rest, 0)
    }

    /// First tokens of documents.
    pub(crate) fn starts(&self) -> DocumentStarts<'_> {
        DocumentStarts::new(&self.rest[8..])
    }
}

/// Buffers that are reused by reads of objects; reads of mapped files need none.
#[derive(Debug, Default)]
pub(crate) struct RowBuffers {
    #[cfg(feature = "remote")]
    tokens: Vec<u8>,
    #[cfg(feature = "remote")]
    meta: Vec<u8>,
}

impl RowBuffers {
    /// Buffers of `tokens` and `meta`.
    #[cfg(feature = "remote")]
    pub(crate) fn columns(&mut self) -> (&mut Vec<u8>, &mut Vec<u8>) {
        (&mut self.tokens, &mut self.meta)
    }
}

/// Appends a row to the bytes of the two columns.
pub(crate) fn encode_row(row: &PackedRow<'_>, layout: RowLayout, tokens: &mut Vec<u8>, meta: &mut Vec<u8>) {
    let (tokens_from, meta_from) = (tokens.len(), meta.len());
    encode_tokens(row.tokens, layout.token_bytes, tokens);
    meta.extend([0; 8]);
    meta.extend(row.document.to_le_bytes());
    meta.extend(row.starts.bitmap());
    let sum = checksum(&tokens[tokens_from..], &meta[meta_from + 8..]);
    meta[meta_from..meta_from + 8].copy_from_slice(&sum.to_le_bytes());
}

/// Cells of a row, if the checksum holds.
pub(crate) fn verified_row<'a>(tokens: &'a [u8], meta: &'a [u8]) -> Option<RowBytes<'a>> {
    let rest = &meta[8..];
    (u64_at(meta, 0) == checksum(tokens, rest)).then_some(RowBytes { tokens, rest })
}

fn checksum(tokens: &[u8], rest: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(tokens);
    hash.update(rest);
    hash.digest()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("meta has a checksum and an ordinal"))
}
