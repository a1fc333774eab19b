//! Checks of a `[[sources]]` table.

use std::path::Path;

use super::key_errors::KeyErrors;
use super::raw::RawSource;
use super::{Format, SourceConfig};
use crate::dedup::DedupKinds;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::mixing::{Quota, Share};

/// Most filters of a source, each of which has a bit of one word.
const MAX_FILTERS: usize = 64;

/// Rule for names of sources, which are folder names on every file system.
pub(crate) const SOURCE_NAME: &str = "1 to 100 letters, digits, `-`, `_` and `.`, not starting with `.`";

/// Whether a name follows [`SOURCE_NAME`].
pub(crate) fn is_source_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(plain)
}

/// Checks a table, and returns the source.
pub(super) fn check_source(raw: RawSource, path: &Path) -> Result<SourceConfig> {
    let at = KeyErrors { path, table: format!("sources.{}.", raw.name) };
    check_name(&raw.name, &at)?;
    let proportion = check_share(&raw, &at)?;
    if raw.tokens.is_some_and(|tokens| !(1.0..1e18).contains(&tokens)) {
        return Err(at.config("tokens", raw.tokens.unwrap_or(0.0), "1 or more, and less than 1e18"));
    }
    check_fields(&raw, &at)?;
    if matches!(raw.format, Format::Mds | Format::Megatron) {
        let format = if raw.format == Format::Mds { "\"mds\"" } else { "\"megatron\"" };
        let instead = "its tokens need no building: convert them to a data folder";
        return Err(at.unsupported("format", format, instead));
    }
    if raw.paths.is_empty() {
        return Err(at.config("paths", "empty", "at least one file or glob pattern"));
    }
    for (index, filter) in raw.filters.iter().enumerate() {
        check_filter(filter, index, &at)?;
    }
    if raw.filters.len() > MAX_FILTERS {
        return Err(at.config("filters", raw.filters.len(), format!("{MAX_FILTERS} at most")));
    }
    raw.paths.iter().try_for_each(|pattern| check_pattern(pattern, &at))?;
    Ok(SourceConfig {
        name: raw.name,
        proportion,
        tokens: raw.tokens.map(|tokens| tokens as u64),
        paths: raw.paths,
        format: raw.format,
        text_field: raw.text_field.unwrap_or_else(|| "text".to_owned()),
        id_field: raw.id_field,
        filters: raw.filters,
        dedup: raw.dedup.and_then(|DedupKinds(kinds)| kinds),
        on_bad_line: raw.on_bad_line,
    })
}

fn check_filter(filter: &Filter, index: usize, at: &KeyErrors<'_>) -> Result<()> {
    filter.check().map_err(|wrong| {
        let dot = if wrong.key.is_empty() { "" } else { "." };
        at.config(&format!("filters[{index}]{dot}{}", wrong.key), wrong.actual, wrong.expected)
    })
}

fn check_name(name: &str, at: &KeyErrors<'_>) -> Result<()> {
    if is_source_name(name) {
        return Ok(());
    }
    Err(at.config("name", format!("{name:?}"), SOURCE_NAME))
}

/// Share of a source, from one of `proportion`, `repeat` and `choose`.
fn check_share(raw: &RawSource, at: &KeyErrors<'_>) -> Result<Share> {
    match (raw.proportion, raw.repeat, raw.choose) {
        (Some(share), None, None) if (1e-6..=1.0).contains(&share) => Ok(Share::Proportion(share)),
        (Some(share), None, None) => Err(at.config("proportion", share, "a share from 0.000001 to 1")),
        (None, Some(times), None) if times > 0.0 && times <= 1e6 => Ok(Share::Quota(Quota::Repeat(times))),
        (None, Some(times), None) => {
            Err(at.config("repeat", times, "how often the source is read in a pass, such as 2 or 0.5"))
        }
        (None, None, Some(samples)) if samples > 0 => Ok(Share::Quota(Quota::Choose(samples))),
        (None, None, Some(samples)) => {
            Err(at.config("choose", samples, "samples of the source in a pass, 1 or more"))
        }
        (None, None, None) => {
            let expected =
                "a share of the samples, such as 0.335; or `repeat = 1` for all that each source has";
            Err(at.config("proportion", "missing", expected))
        }
        (Some(share), _, _) => {
            let other = if raw.repeat.is_some() { "repeat" } else { "choose" };
            let expected =
                "no such key beside `proportion`: a source has one of `proportion`, `repeat` and `choose`";
            Err(at.config(other, format!("set beside `proportion` = {share}"), expected))
        }
        (None, Some(times), Some(_)) => {
            let expected =
                "no such key beside `repeat`: a source has one of `proportion`, `repeat` and `choose`";
            Err(at.config("choose", format!("set beside `repeat` = {times}"), expected))
        }
    }
}

/// Refuses keys about fields for text files, which have none.
fn check_fields(raw: &RawSource, at: &KeyErrors<'_>) -> Result<()> {
    if raw.format != Format::Text {
        return Ok(());
    }
    let given = [("text_field", raw.text_field.is_some()), ("id_field", raw.id_field.is_some())];
    if let Some((key, _)) = given.iter().find(|(_, given)| *given) {
        return Err(at.config(key, "set", "no such key with `format = \"text\"`: a text file has no fields"));
    }
    match raw.filters.iter().find_map(Filter::field) {
        Some(field) => Err(at.config(
            "filters",
            format!("a filter on the field `{field}`"),
            "filters on the text alone with `format = \"text\"`",
        )),
        None => Ok(()),
    }
}

fn check_pattern(pattern: &str, at: &KeyErrors<'_>) -> Result<()> {
    if pattern.contains("://") {
        if !cfg!(feature = "remote") {
            return Err(Error::NotBuilt {
                what: format!("{}: `{}paths` = \"{pattern}\"", at.path.display(), at.table),
                feature: "remote",
                instead: "build it with that, or copy the files to this machine and name them here",
            });
        }
        return crate::remote::check_pattern(pattern).map_err(|problem| {
            at.config("paths", format!("\"{pattern}\""), format!("an address that can be read: {problem}"))
        });
    }
    match glob::Pattern::new(pattern) {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(at.config("paths", format!("\"{pattern}\""), format!("a path or glob pattern ({error})")))
        }
    }
}
