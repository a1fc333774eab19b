//! `tokenizer.json` as it is read: any bytes become a [`TokenizerFile`] that holds what it promises, or an error that
//! names the field.
//!
//! Only what the family uses is accepted: byte-level BPE. A file is data: no pattern, template or rule in it is run. Time
//! and memory are linear in its size, which is bounded. `truncation` and `padding` are not read.

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::normalizers::unicode::{NFC, NFD, NFKC, NFKD};

use crate::bpe::Bpe;
use crate::bytes;
use crate::error::{Error, Result, short, shown};

/// The largest file, in bytes; the family's is 2.5 MB.
pub(crate) const MAX_BYTES: u64 = 64 << 20;
/// Entries of the vocabulary, and merges, at most; ids are below twice this.
const MAX_ENTRIES: usize = 1 << 20;
/// Bytes of one token at most; GPT-NeoX has one of 1,024.
const MAX_TOKEN_BYTES: usize = 8192;
/// Added tokens at most, and their bytes in all: the automaton that finds them takes a multiple of it.
const MAX_ADDED: usize = 1 << 14;
const MAX_ADDED_BYTES: usize = 1 << 18;
/// Members of a `Sequence` at most.
const MAX_STEPS: usize = 8;

/// What a `tokenizer.json` says, checked.
pub(crate) struct TokenizerFile {
    /// Tokens to ids and merges; it encodes every text.
    pub(crate) model: BPE,
    /// The same in a faster form; none where a word that is a token skips the merges, or merges are ambiguous.
    pub(crate) bpe: Option<Bpe>,
    /// Steps in order.
    pub(crate) normalizers: Vec<NormalizerWrapper>,
    /// How a text becomes words.
    pub(crate) words: WordRules,
    /// In the order of the file.
    pub(crate) added: Vec<AddedToken>,
    /// The bytes each id stands for; `None` where an id has no token. Added tokens are not in it.
    pub(crate) token_bytes: Vec<Option<Box<[u8]>>>,
}

/// How a text becomes words.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WordRules {
    /// Split digits off first, if so whether one by one.
    pub(crate) digits: Option<bool>,
    /// Put a space before a piece without one.
    pub(crate) prefix_space: bool,
    /// Split by the pattern of GPT-2.
    pub(crate) pattern: bool,
}

/// A token that is found before anything else.
#[derive(Debug, Clone)]
pub(crate) struct AddedToken {
    /// Its id.
    pub(crate) id: u32,
    /// Its text, never empty.
    pub(crate) content: String,
    /// Whether it is looked for in the normalized text.
    pub(crate) normalized: bool,
}

impl TokenizerFile {
    /// Reads and checks; `origin` is named in errors.
    pub(crate) fn parse(json: &[u8], origin: &Path) -> Result<Self> {
        let field = |problem: Problem| problem.at(origin);
        if json.len() as u64 > MAX_BYTES {
            return Err(field(Problem::new("the file", format!("{} bytes", json.len()), "64 MiB at most")));
        }
        let raw: Raw = read(json, origin)?;
        check_version(raw.version.as_deref()).map_err(field)?;
        let normalizers = normalizers(raw.normalizer).map_err(field)?;
        let words = word_rules(raw.pre_tokenizer).map_err(field)?;
        check_byte_level("decoder", raw.decoder.as_ref(), false).map_err(field)?;
        check_byte_level("post_processor", raw.post_processor.as_ref(), true).map_err(field)?;
        check_model_options(&raw.model).map_err(field)?;
        let token_bytes = token_bytes(&raw.model.vocab.0).map_err(field)?;
        let added = added_tokens(raw.added_tokens.map(|list| list.0).unwrap_or_default(), &raw.model.vocab.0);
        let added = added.map_err(field)?;
        let (model, bpe) = model(raw.model).map_err(field)?;
        Ok(Self { model, bpe, normalizers, words, added, token_bytes })
    }
}

/// A field that is not what it must be.
struct Problem {
    field: String,
    actual: String,
    expected: String,
}

impl Problem {
    fn new(field: impl Into<String>, actual: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { field: field.into(), actual: actual.into(), expected: expected.into() }
    }

    fn at(self, origin: &Path) -> Error {
        let Self { field, actual, expected } = self;
        Error::TokenizerField { path: origin.to_owned(), field, actual, expected }
    }
}

/// The file as written. Keys that are not here are not read, as in the library that writes these files.
#[derive(serde::Deserialize)]
struct Raw {
    version: Option<String>,
    added_tokens: Option<Limited<RawAdded, MAX_ADDED>>,
    normalizer: Option<RawPart>,
    pre_tokenizer: Option<RawPart>,
    post_processor: Option<RawPart>,
    decoder: Option<RawPart>,
    model: RawModel,
}

#[derive(serde::Deserialize)]
struct RawAdded {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: bool,
}

/// A normalizer, pre-tokenizer, post-processor or decoder, or a `Sequence` of them.
#[derive(serde::Deserialize)]
struct RawPart {
    #[serde(rename = "type")]
    kind: String,
    add_prefix_space: Option<bool>,
    use_regex: Option<bool>,
    individual_digits: Option<bool>,
    #[serde(alias = "normalizers", alias = "pretokenizers", alias = "processors", alias = "decoders")]
    steps: Option<Limited<RawStep, MAX_STEPS>>,
}

/// A member of a `Sequence`; one `Sequence` in another is refused by its `type`.
#[derive(serde::Deserialize)]
struct RawStep {
    #[serde(rename = "type")]
    kind: String,
    add_prefix_space: Option<bool>,
    use_regex: Option<bool>,
    individual_digits: Option<bool>,
}

impl RawPart {
    /// Its steps in order, each with the name of its field.
    fn into_steps(self, field: &str, members: &str) -> Vec<(String, RawStep)> {
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

#[derive(serde::Deserialize)]
struct RawModel {
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    ignore_merges: bool,
    vocab: Vocabulary,
    merges: Limited<Merge, MAX_ENTRIES>,
}

/// Parses, and names the field of what does not fit.
fn read(json: &[u8], origin: &Path) -> Result<Raw> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let broken = |field: String, source| Error::BrokenTokenizer { path: origin.to_owned(), field, source };
    let raw = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| broken(short(&error.path().to_string()), error.into_inner()))?;
    deserializer.end().map_err(|source| broken("the end of the file".to_owned(), source))?;
    Ok(raw)
}

fn check_version(version: Option<&str>) -> Result<(), Problem> {
    match version {
        None | Some("1.0") => Ok(()),
        Some(other) => Err(Problem::new("version", shown(other), "1.0")),
    }
}

fn normalizers(part: Option<RawPart>) -> Result<Vec<NormalizerWrapper>, Problem> {
    let Some(part) = part else { return Ok(Vec::new()) };
    let steps = part.into_steps("normalizer", "normalizers").into_iter();
    steps
        .map(|(field, step)| match step.kind.as_str() {
            "NFC" => Ok(NFC.into()),
            "NFD" => Ok(NFD.into()),
            "NFKC" => Ok(NFKC.into()),
            "NFKD" => Ok(NFKD.into()),
            other => Err(Problem::new(
                field + ".type",
                shown(other),
                "`NFC`, `NFD`, `NFKC`, `NFKD`, or a `Sequence` of them",
            )),
        })
        .collect()
}

/// `ByteLevel`, or `Digits` and then `ByteLevel`.
fn word_rules(part: Option<RawPart>) -> Result<WordRules, Problem> {
    const EXPECTED: &str = "`ByteLevel`, or a `Sequence` of `Digits` and `ByteLevel`";
    let missing = |actual: &str| Problem::new("pre_tokenizer", actual, EXPECTED);
    let mut steps = part.ok_or_else(|| missing("null"))?.into_steps("pre_tokenizer", "pretokenizers");
    let (field, last) = steps.pop().ok_or_else(|| missing("an empty `Sequence`"))?;
    let other = |field: String, kind: &str| Problem::new(field + ".type", shown(kind), EXPECTED);
    if last.kind != "ByteLevel" {
        return Err(other(field, &last.kind));
    }
    let digits = match steps.pop() {
        Some((_, step)) if step.kind == "Digits" => Some(step.individual_digits.unwrap_or(false)),
        Some((field, step)) => return Err(other(field, &step.kind)),
        None => None,
    };
    if let Some((field, step)) = steps.pop() {
        return Err(other(field, &step.kind));
    }
    let prefix_space = last.add_prefix_space.unwrap_or(true);
    Ok(WordRules { digits, prefix_space, pattern: last.use_regex.unwrap_or(true) })
}

fn check_byte_level(field: &str, part: Option<&RawPart>, may_lack: bool) -> Result<(), Problem> {
    let actual = match part {
        Some(part) if part.kind == "ByteLevel" => return Ok(()),
        None if may_lack => return Ok(()),
        Some(part) => shown(&part.kind),
        None => "null".to_owned(),
    };
    let expected = if may_lack { "`ByteLevel` or null: nothing is put around a text" } else { "`ByteLevel`" };
    Err(Problem::new(format!("{field}.type"), actual, expected))
}

fn check_model_options(model: &RawModel) -> Result<(), Problem> {
    let refused = |field: &str, actual: String, expected: &str| {
        Err(Problem::new(format!("model.{field}"), actual, expected))
    };
    if let Some(kind) = model.kind.as_ref().filter(|kind| *kind != "BPE") {
        return refused("type", shown(kind), "`BPE`, the kind of the family's tokenizers");
    }
    if let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0) {
        return refused("dropout", dropout.to_string(), "null: the same text must always give the same ids");
    }
    for (field, affix) in [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if let Some(affix) = affix.as_ref().filter(|affix| !affix.is_empty()) {
            return refused(field, shown(affix), "null, as in every byte-level vocabulary");
        }
    }
    match model.unk_token.as_ref().filter(|token| !token.is_empty() && !model.vocab.0.contains_key(*token)) {
        Some(token) => refused("unk_token", shown(token), "null or a token of `model.vocab`"),
        None => Ok(()),
    }
}

/// The bytes of each id; every byte of UTF-8 has a token, ids are unique and few are unused.
fn token_bytes(vocab: &HashMap<String, u32>) -> Result<Vec<Option<Box<[u8]>>>, Problem> {
    let problem = |actual: String, expected: &str| Problem::new("model.vocab", actual, expected);
    let spelled = |byte: u8| bytes::char_of(byte).to_string();
    if let Some(byte) = bytes::in_utf8().find(|&byte| !vocab.contains_key(&spelled(byte))) {
        let actual = format!("without a token `{}` for the byte {byte:#04x}", spelled(byte));
        return Err(problem(actual, "a token for every byte of UTF-8, so that every text has ids"));
    }
    let num_ids = vocab.values().max().map_or(0, |&id| id as usize + 1);
    if num_ids > 2 * vocab.len() {
        let actual = format!("{} tokens with ids up to {}", vocab.len(), num_ids - 1);
        return Err(problem(actual, "ids without large gaps"));
    }
    let mut table: Vec<Option<Box<[u8]>>> = vec![None; num_ids];
    for (token, &id) in vocab {
        if table[id as usize].replace(bytes::bytes_of(token).into()).is_some() {
            return Err(problem(
                format!("with two tokens of id {id}, one of them {}", shown(token)),
                "unique ids",
            ));
        }
    }
    Ok(table)
}

/// Ids must be those that the library gives: a token's own in the vocabulary, else the next after it.
fn added_tokens(raw: Vec<RawAdded>, vocab: &HashMap<String, u32>) -> Result<Vec<AddedToken>, Problem> {
    let mut next = vocab.len() as u32;
    let mut seen = HashSet::new();
    let mut bytes = 0;
    let used: HashSet<u32> = vocab.values().copied().collect();
    for (index, token) in raw.iter().enumerate() {
        let problem = |field: &str, actual: String, expected: String| {
            Err(Problem::new(format!("added_tokens[{index}].{field}"), actual, expected))
        };
        bytes += token.content.len();
        if token.content.is_empty() || token.content.len() > MAX_TOKEN_BYTES || bytes > MAX_ADDED_BYTES {
            let expected = format!("1 to {MAX_TOKEN_BYTES} bytes, and {MAX_ADDED_BYTES} in all added tokens");
            return problem("content", format!("{} bytes", token.content.len()), expected);
        }
        if !seen.insert(token.content.as_str()) {
            return problem("content", shown(&token.content), "a token that is not in the list yet".into());
        }
        let flags = [("single_word", token.single_word), ("lstrip", token.lstrip), ("rstrip", token.rstrip)];
        if let Some((flag, _)) = flags.into_iter().find(|(_, set)| *set) {
            return problem(flag, "true".into(), "false: no token takes the text around it along".into());
        }
        let expected = vocab.get(&token.content).copied().unwrap_or(next);
        if token.id != expected {
            return problem("id", token.id.to_string(), expected.to_string());
        }
        if expected == next && !vocab.contains_key(&token.content) {
            if used.contains(&next) {
                return problem("id", token.id.to_string(), "an id that `model.vocab` does not use".into());
            }
            next += 1;
        }
    }
    let checked = |RawAdded { id, content, normalized, .. }| AddedToken { id, content, normalized };
    Ok(raw.into_iter().map(checked).collect())
}

/// The model; the library takes for granted that both halves of a merge and the whole are tokens.
fn model(raw: RawModel) -> Result<(BPE, Option<Bpe>), Problem> {
    let vocab = raw.vocab.0;
    let mut whole = String::new();
    let mut ids = Vec::with_capacity(raw.merges.0.len());
    for (index, Merge(left, right)) in raw.merges.0.iter().enumerate() {
        whole.clear();
        whole.extend([left.as_str(), right.as_str()]);
        let missing = |token: &str| {
            let actual = format!("{} and {}", shown(left), shown(right));
            let expected = format!("tokens of `model.vocab`, which lacks {}", shown(token));
            Problem::new(format!("model.merges[{index}]"), actual, expected)
        };
        let id = |token: &str| vocab.get(token).copied().ok_or_else(|| missing(token));
        ids.push([id(left)?, id(right)?, id(&whole)?]);
    }
    let byte_ids = std::array::from_fn(|byte| {
        vocab.get(&bytes::char_of(byte as u8).to_string()).copied().unwrap_or(u32::MAX)
    });
    let bpe = if raw.ignore_merges { None } else { Bpe::new(byte_ids, &ids) };
    let merges = raw.merges.0.into_iter().map(|Merge(left, right)| (left, right)).collect();
    let vocab: tokenizers::models::bpe::Vocab = vocab.into_iter().collect();
    let builder = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(raw.ignore_merges);
    let refused =
        |error: tokenizers::Error| Problem::new("model", error.to_string(), "a model the library accepts");
    Ok((builder.build().map_err(refused)?, bpe))
}

/// A list of at most `N` elements; reading stops at the one too many.
struct Limited<T, const N: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Limited<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for List<T, N> {
            type Value = Limited<T, N>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a list of at most {N} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while list.len() < N {
                    match seq.next_element()? {
                        Some(element) => list.push(element),
                        None => return Ok(Limited(list)),
                    }
                }
                match seq.next_element::<IgnoredAny>()? {
                    Some(_) => Err(serde::de::Error::invalid_length(N + 1, &self)),
                    None => Ok(Limited(list)),
                }
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// Tokens and their ids, of bounded number and length; no token occurs twice.
struct Vocabulary(HashMap<String, u32>);

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

/// Two tokens that become one: `"a b"`, or `["a", "b"]` in newer files.
struct Merge(String, String);

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
