//! `tokenizer.json` as written: serde types whose sizes are bounded during deserialization.

use std::collections::HashMap;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};

use crate::error::shown;

/// Most entries of the vocabulary, and most merges; ids are below twice this.
const MAX_ENTRIES: usize = 1 << 20;
/// Longest token in bytes; GPT-NeoX has one of 1,024.
pub(super) const MAX_TOKEN_BYTES: usize = 8192;
/// Most added tokens.
const MAX_ADDED: usize = 1 << 14;
/// Most members of a `Sequence`.
const MAX_SEQUENCE_STEPS: usize = 8;

/// `tokenizer.json` as written. Other keys are ignored, as in the `tokenizers` crate.
#[derive(serde::Deserialize)]
pub(super) struct Raw {
    pub(super) version: Option<String>,
    pub(super) added_tokens: Option<BoundedList<RawAdded, MAX_ADDED>>,
    pub(super) normalizer: Option<RawComponent>,
    pub(super) pre_tokenizer: Option<RawComponent>,
    pub(super) post_processor: Option<RawComponent>,
    pub(super) decoder: Option<RawComponent>,
    pub(super) model: RawModel,
}

/// Entry of `added_tokens` as written.
#[derive(serde::Deserialize)]
pub(super) struct RawAdded {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    pub(super) normalized: bool,
}

/// Normalizer, pre-tokenizer, post-processor or decoder, or a `Sequence` of them.
#[derive(serde::Deserialize)]
pub(super) struct RawComponent {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) add_prefix_space: Option<bool>,
    pub(super) use_regex: Option<bool>,
    pub(super) individual_digits: Option<bool>,
    #[serde(alias = "normalizers", alias = "pretokenizers", alias = "processors", alias = "decoders")]
    pub(super) steps: Option<BoundedList<RawStep, MAX_SEQUENCE_STEPS>>,
}

/// Member of a `Sequence`. A nested `Sequence` is refused by its `type`.
#[derive(serde::Deserialize)]
pub(super) struct RawStep {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) add_prefix_space: Option<bool>,
    pub(super) use_regex: Option<bool>,
    pub(super) individual_digits: Option<bool>,
}

impl RawComponent {
    /// Steps in order, each with its field path; `members` is the key of a `Sequence`.
    pub(super) fn into_steps(self, field: &str, members: &str) -> Vec<(String, RawStep)> {
        let Self { kind, add_prefix_space, use_regex, individual_digits, steps } = self;
        if kind != "Sequence" {
            return vec![(
                field.to_owned(),
                RawStep { kind, add_prefix_space, use_regex, individual_digits },
            )];
        }
        let steps = steps.map(|list| list.0).unwrap_or_default().into_iter().enumerate();
        steps.map(|(index, step)| (format!("{field}.{members}[{index}]"), step)).collect()
    }
}

/// `model` as written.
#[derive(serde::Deserialize)]
pub(super) struct RawModel {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) dropout: Option<f64>,
    pub(super) unk_token: Option<String>,
    pub(super) continuing_subword_prefix: Option<String>,
    pub(super) end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub(super) ignore_merges: bool,
    pub(super) vocab: Vocabulary,
    pub(super) merges: BoundedList<Merge, MAX_ENTRIES>,
}

/// List of at most `N` elements. Deserialization stops at the first element too many.
pub(super) struct BoundedList<T, const N: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for BoundedList<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for List<T, N> {
            type Value = BoundedList<T, N>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a list of at most {N} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while list.len() < N {
                    match seq.next_element()? {
                        Some(element) => list.push(element),
                        None => return Ok(BoundedList(list)),
                    }
                }
                match seq.next_element::<IgnoredAny>()? {
                    Some(_) => Err(serde::de::Error::invalid_length(N + 1, &self)),
                    None => Ok(BoundedList(list)),
                }
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// Distinct tokens and their ids, bounded in number and length.
pub(super) struct Vocabulary(pub(super) HashMap<String, u32>);

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(
                    f,
                    "at most {MAX_ENTRIES} tokens of at most {MAX_TOKEN_BYTES} bytes, each once, with their ids"
                )
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                use serde::de::Error as _;
                let mut vocab: HashMap<String, u32> = HashMap::new();
                while let Some((token, id)) = map.next_entry::<String, u32>()? {
                    if vocab.len() == MAX_ENTRIES {
                        return Err(A::Error::invalid_length(MAX_ENTRIES + 1, &self));
                    }
                    if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
                        return Err(A::Error::invalid_value(
                            Unexpected::Other(&format!("a token of {} bytes", token.len())),
                            &self,
                        ));
                    }
                    if let Some((token, _)) = vocab.get_key_value(&token) {
                        return Err(A::Error::custom(format!("the token {} occurs twice", shown(token))));
                    }
                    vocab.insert(token, id);
                }
                Ok(Vocabulary(vocab))
            }
        }
        deserializer.deserialize_map(Tokens)
    }
}

/// Merge of two tokens: `"a b"`, or `["a", "b"]` in newer files.
pub(super) struct Merge(pub(super) String, pub(super) String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("two tokens: `\"a b\"` or `[\"a\", \"b\"]`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
                let pair = text.split_once(' ').filter(|(_, right)| !right.contains(' '));
                let wrong = || E::invalid_value(Unexpected::Other(&shown(text)), &self);
                pair.map(|(left, right)| Merge(left.to_owned(), right.to_owned())).ok_or_else(wrong)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                let pair = (seq.next_element()?, seq.next_element()?, seq.next_element::<IgnoredAny>()?);
                match pair {
                    (Some(left), Some(right), None) => Ok(Merge(left, right)),
                    _ => Err(serde::de::Error::custom("a merge of other than two tokens")),
                }
            }
        }
        deserializer.deserialize_any(Pair)
    }
}
