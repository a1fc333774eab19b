//! Byte-level alphabet: every byte as one printable character, the spelling of tokens in a vocabulary.
//!
//! Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", the released `encoder.py`.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Character of each byte: itself when printable, else the next one from U+0100.
static CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut others = (0x100..).filter_map(char::from_u32);
    std::array::from_fn(|byte| match byte as u8 {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
        _ => others.next().unwrap_or(char::REPLACEMENT_CHARACTER),
    })
});

/// Byte of each character.
static BYTES: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| (0u8..=255).map(|byte| (byte_to_char(byte), byte)).collect());

/// Character of a byte.
pub(crate) fn byte_to_char(byte: u8) -> char {
    CHARS[usize::from(byte)]
}

/// Writes the bytes of a text in the alphabet.
pub(crate) fn encode_bytes(text: &str, into: &mut String) {
    into.clear();
    into.extend(text.bytes().map(byte_to_char));
}

/// Bytes of a token of a vocabulary; a token outside the alphabet is its own UTF-8.
pub(crate) fn token_to_bytes(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(|c| BYTES.get(&c).copied()).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// Bytes that occur in UTF-8. A vocabulary with a token for each encodes every text.
pub(crate) fn utf8_bytes() -> impl Iterator<Item = u8> {
    (0..=255).filter(|byte| !matches!(byte, 0xc0 | 0xc1 | 0xf5..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    #[test]
    fn the_alphabet_is_that_of_the_library() {
        let ours: Vec<char> = (0..=255).map(byte_to_char).collect();
        assert_eq!(BYTES.len(), 256);
        assert!(ByteLevel::alphabet().iter().all(|c| ours.contains(c)));
        assert_eq!((byte_to_char(b' '), byte_to_char(0), byte_to_char(0xad)), ('Ġ', 'Ā', 'Ń'));
        let mut text = String::new();
        encode_bytes("aé ", &mut text);
        assert_eq!((text.as_str(), token_to_bytes(&text)), ("aÃ©Ġ", "aé ".as_bytes().to_vec()));
        assert_eq!(token_to_bytes("a b"), b"a b");
    }
}
