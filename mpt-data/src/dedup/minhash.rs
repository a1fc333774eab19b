//! MinHash signatures: texts with a share `s` of n-grams in common have about that share of equal hashes.
//!
//! These definitions are pinned: they decide which documents stay, so they may only change with the format version.
//!
//! - A *word* is a sequence of letters and digits in lower case, in which every sequence of digits is `0`. Characters of
//!   scripts written without spaces (Han, kana, Thai, Lao, Khmer, Burmese) are each a word.
//! - An *n-gram* is `ngram` consecutive words; a text of fewer words is one n-gram. A text without words has no signature.
//! - Hash `i` of an n-gram with the 64-bit hash `x` is the upper half of `a_i · x + b_i` modulo 2⁶⁴, and hash `i` of a text
//!   is the least over its n-grams. The factors follow from the seed.

use super::config::MinHash;
use crate::filter::ngrams::{NgramHashes, fmix64};

/// Hash functions of a seed.
#[derive(Debug, Clone)]
pub(crate) struct MinHasher {
    ngram: usize,
    factors: Vec<(u64, u64)>,
}

impl MinHasher {
    /// Hash functions of these settings.
    pub(crate) fn new(settings: &MinHash) -> Self {
        let draw = |at: usize| fmix64(fmix64(settings.seed.wrapping_add(1)).wrapping_add(at as u64 + 1));
        let count = settings.bands * settings.rows;
        let factors = (0..count).map(|at| (draw(2 * at) | 1, draw(2 * at + 1))).collect();
        Self { ngram: settings.ngram, factors }
    }

    /// Signature of a text; empty for a text without words.
    pub(crate) fn signature(&self, text: &str, ngrams: &mut NgramHashes) -> Vec<u32> {
        let words = words(text);
        if words.is_empty() {
            return Vec::new();
        }
        ngrams.reset(words.iter().map(|&word| (word, 0)));
        let mut signature = vec![u32::MAX; self.factors.len()];
        ngrams.hashes(self.ngram.min(words.len())).for_each(|ngram| self.update(ngram, &mut signature));
        signature
    }

    fn update(&self, ngram: u64, signature: &mut [u32]) {
        let ngram = fmix64(ngram);
        for (least, (factor, offset)) in signature.iter_mut().zip(&self.factors) {
            let hash = (factor.wrapping_mul(ngram).wrapping_add(*offset) >> 32) as u32;
            *least = hash.min(*least);
        }
    }
}

/// Share of equal hashes: an estimate of the Jaccard similarity of the n-grams.
pub(crate) fn similarity(a: &[u32], b: &[u32]) -> f64 {
    let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
    equal as f64 / a.len().max(1) as f64
}

/// Hashes of the words of a text.
fn words(text: &str) -> Vec<u64> {
    const EMPTY: u64 = 0xCBF2_9CE4_8422_2325;
    let (mut words, mut word, mut in_number) = (Vec::new(), EMPTY, false);
    let mut end = |word: &mut u64| {
        if *word != EMPTY {
            words.push(fmix64(std::mem::replace(word, EMPTY)));
        }
    };
    let letter = |word: u64, c: char| (word ^ u64::from(u32::from(c))).wrapping_mul(0x0000_0100_0000_01B3);
    for c in text.chars() {
        let is_digit = c.is_numeric();
        if !c.is_alphanumeric() || is_unspaced(c) {
            end(&mut word);
        }
        if is_digit && !in_number {
            word = letter(word, '0');
        } else if c.is_alphabetic() {
            word = c.to_lowercase().fold(word, letter);
        }
        if is_unspaced(c) {
            end(&mut word);
        }
        in_number = is_digit;
    }
    end(&mut word);
    words
}

/// Whether a character belongs to a script without spaces between words.
fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c), 0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF | 0x3040..=0x30FF | 0x3400..=0x4DBF
        | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF)
        && c.is_alphabetic()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(text: &str) -> Vec<u32> {
        MinHasher::new(&MinHash::default()).signature(text, &mut NgramHashes::default())
    }

    /// A text of words with these numbers.
    fn text(words: impl IntoIterator<Item = u64>) -> String {
        let name = |word: u64| {
            let letter = |at: u32| char::from(b'a' + (fmix64(word + 1) >> (5 * at)) as u8 % 26);
            (0..10).map(letter).collect::<String>()
        };
        words.into_iter().map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_are_told_apart_by_letters_alone() {
        assert_eq!(words("It's 3,141 a.m. of X2y!"), words("it S 0 00 A m OF x77Y"));
        assert_eq!(words("12").len(), 1);
        assert_eq!(words("日本語 は ไทย abc").len(), 3 + 1 + 3 + 1);
        assert_ne!(words("ab c"), words("a bc"));
        assert!(words(" .,;— \n").is_empty());
    }

    #[test]
    fn short_texts_are_one_run_and_wordless_texts_have_none() {
        assert_eq!(signature("One two!"), signature("one, TWO"));
        assert_ne!(signature("one two"), signature("one two three"));
        assert!(signature("… — …").is_empty());
    }

    /// The hashes of a signature are pinned: changed ones would make parts of an interrupted build disagree.
    #[test]
    fn signatures_are_pinned() {
        let found = signature("The quick brown fox jumps over the lazy dog, 42 times.");
        assert_eq!(found.len(), 14 * 8);
        assert_eq!(found[..4], PINNED);
    }

    const PINNED: [u32; 4] = [193_972_727, 2_634_374_370, 151_670_706, 627_437_361];

    #[test]
    fn shares_of_equal_hashes_are_those_of_runs() {
        for (changed, runs) in [(0, 1.0), (20, 0.8), (60, 0.5)] {
            // Texts of 500 words of which the last are others: of their runs 496 - changed are in common.
            let mut error = 0.0;
            for seed in 0..40 {
                let word = |at: u64| seed * 10_000 + at;
                let a = signature(&text((0..500).map(word)));
                let b = signature(&text((0..500 - changed).chain(5000..5000 + changed).map(word)));
                let common = 496.0 - changed as f64;
                error += similarity(&a, &b) - common / (2.0 * 496.0 - common);
            }
            assert!((error / 40.0).abs() < 0.02, "{runs}: {error}");
        }
    }
}
