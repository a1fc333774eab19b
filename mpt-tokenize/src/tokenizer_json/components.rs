//! Normalizer, pre-tokenizer, decoder and post-processor of a `tokenizer.json`.

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::normalizers::unicode::{NFC, NFD, NFKC, NFKD};

use super::FieldError;
use super::raw::RawComponent;
use crate::error::shown;
use crate::pre_tokenizer::PreTokenizer;

/// Normalizers in order.
pub(super) fn normalizers(component: Option<RawComponent>) -> Result<Vec<NormalizerWrapper>, FieldError> {
    let Some(component) = component else { return Ok(Vec::new()) };
    let steps = component.into_steps("normalizer", "normalizers").into_iter();
    steps
        .map(|(field, step)| match step.kind.as_str() {
            "NFC" => Ok(NFC.into()),
            "NFD" => Ok(NFD.into()),
            "NFKC" => Ok(NFKC.into()),
            "NFKD" => Ok(NFKD.into()),
            other => Err(FieldError::new(
                field + ".type",
                shown(other),
                "`NFC`, `NFD`, `NFKC`, `NFKD`, or a `Sequence` of them",
            )),
        })
        .collect()
}

/// Pre-tokenizer: `ByteLevel`, or `Digits` then `ByteLevel`.
pub(super) fn pre_tokenizer(component: Option<RawComponent>) -> Result<PreTokenizer, FieldError> {
    const EXPECTED: &str = "`ByteLevel`, or a `Sequence` of `Digits` and `ByteLevel`";
    let missing = |actual: &str| FieldError::new("pre_tokenizer", actual, EXPECTED);
    let mut steps = component.ok_or_else(|| missing("null"))?.into_steps("pre_tokenizer", "pretokenizers");
    let (field, last) = steps.pop().ok_or_else(|| missing("an empty `Sequence`"))?;
    let other = |field: String, kind: &str| FieldError::new(field + ".type", shown(kind), EXPECTED);
    if last.kind != "ByteLevel" {
        return Err(other(field, &last.kind));
    }
    let individual_digits = match steps.pop() {
        Some((_, step)) if step.kind == "Digits" => Some(step.individual_digits.unwrap_or(false)),
        Some((field, step)) => return Err(other(field, &step.kind)),
        None => None,
    };
    if let Some((field, step)) = steps.pop() {
        return Err(other(field, &step.kind));
    }
    let add_prefix_space = last.add_prefix_space.unwrap_or(true);
    Ok(PreTokenizer { individual_digits, add_prefix_space, use_regex: last.use_regex.unwrap_or(true) })
}

/// Checks that a component is `ByteLevel`, or absent when `optional`.
pub(super) fn check_byte_level(
    field: &str,
    component: Option<&RawComponent>,
    optional: bool,
) -> Result<(), FieldError> {
    let actual = match component {
        Some(component) if component.kind == "ByteLevel" => return Ok(()),
        None if optional => return Ok(()),
        Some(component) => shown(&component.kind),
        None => "null".to_owned(),
    };
    let expected = if optional { "`ByteLevel` or null: nothing is put around a text" } else { "`ByteLevel`" };
    Err(FieldError::new(format!("{field}.type"), actual, expected))
}
