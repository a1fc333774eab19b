//! Unicode normalization of texts, by runs of non-ASCII characters.

use std::borrow::Cow;

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::{NormalizedString, Normalizer};

use crate::error::{Error, Result};

/// Text in the tokenizer's normal form.
///
/// ASCII is already normalized, and no Unicode normal form composes across the boundary before an ASCII character. Each run
/// of non-ASCII characters is therefore normalized alone, with the character before it.
///
/// # Errors
/// [`Error::Encode`] when the `tokenizers` crate fails.
pub(crate) fn normalize<'t>(normalizers: &[NormalizerWrapper], text: &'t str) -> Result<Cow<'t, str>> {
    if text.is_ascii() || normalizers.is_empty() {
        return Ok(text.into());
    }
    let mut normal = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.bytes().position(|byte| !byte.is_ascii()) {
        let start = first.saturating_sub(1);
        let end =
            rest.bytes().skip(first).position(|byte| byte.is_ascii()).map_or(rest.len(), |more| first + more);
        normal.push_str(&rest[..start]);
        normal.push_str(&normalize_run(normalizers, &rest[start..end])?);
        rest = &rest[end..];
    }
    normal.push_str(rest);
    Ok(normal.into())
}

fn normalize_run(normalizers: &[NormalizerWrapper], run: &str) -> Result<String> {
    let mut run = NormalizedString::from(run);
    for normalizer in normalizers {
        normalizer.normalize(&mut run).map_err(Error::Encode)?;
    }
    Ok(run.get().to_owned())
}
