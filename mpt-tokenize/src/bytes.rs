//! The byte-level alphabet: every byte written as one printable character, which is how vocabularies are stored.
//!
//! Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", the released `encoder.py`.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The character of each byte: itself where it is printable, else one from U+0100 on in the order of the bytes.
static CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut others = (0x100..).filter_map(char::from_u32);
    std::array::from_fn(|byte| match byte as u8 {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
        _ => others.next().unwrap_or(char::REPLACEMENT_CHARACTER),
    })
});

static BYTES: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| (0u8..=255).map(|byte| (char_of(byte), byte)).collect());

/// The character that stands for a byte.
pub(crate) fn char_of(byte: u8) -> char {
    CHARS[usize::from(byte)]
}

/// A text in the alphabet, one character a byte.
pub(crate) fn spelled(text: &str, into: &mut String) {
    into.clear();
    into.extend(text.bytes().map(char_of));
}

/// The bytes that a token of a vocabulary stands for; a token that is not in the alphabet stands for itself.
pub(crate) fn bytes_of(token: &str) -> Vec<u8> {
    let spelled: Option<Vec<u8>> = token.chars().map(|c| BYTES.get(&c).copied()).collect();
    spelled.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The bytes that occur in UTF-8. A vocabulary with a token for each can encode every text.
pub(crate) fn in_utf8() -> impl Iterator<Item = u8> {
    (0..=255).filter(|byte| !matches!(byte, 0xc0 | 0xc1 | 0xf5..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    #[test]
    fn the_alphabet_is_that_of_the_library() {
        let ours: Vec<char> = (0..=255).map(char_of).collect();
        assert_eq!(BYTES.len(), 256);
        assert!(ByteLevel::alphabet().iter().all(|c| ours.contains(c)));
        assert_eq!((char_of(b' '), char_of(0), char_of(0xad)), ('Ġ', 'Ā', 'Ń'));
        let mut text = String::new();
        spelled("aé ", &mut text);
        assert_eq!((text.as_str(), bytes_of(&text)), ("aÃ©Ġ", "aé ".as_bytes().to_vec()));
        assert_eq!(bytes_of("a b"), b"a b");
    }
}
