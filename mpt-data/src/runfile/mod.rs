//! Run files: TOML read into a type, where every key the type does not know is an error with line and nearest name.
//!
//! The type says which keys exist, by `#[serde(deny_unknown_fields)]` on each of its tables.

mod read;

use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::read::{Found, PathSegment, Reader, Reason, Refusal};
use crate::error::{Error, Result};

/// Reads the text of a run file; `origin` is named in errors.
///
/// # Errors
/// [`Error::UnknownKey`] for a key or kind that `T` does not have, [`Error::RunFileSyntax`] for everything else.
pub fn parse<T: DeserializeOwned>(text: &str, origin: &Path) -> Result<T> {
    let refused = |at: usize, problem| Error::RunFileSyntax {
        path: origin.to_owned(),
        line: line_of(text, at),
        problem,
    };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        refused(at, one_line(error.message()))
    })?;
    let span = table.span();
    let whole = Spanned::new(span, DeValue::Table(table.into_inner()));
    let Refusal { key_path, reason } = match T::deserialize(Reader::new(&whole)) {
        Ok(run) => return Ok(run),
        Err(refusal) => refusal,
    };
    let within = find(&whole, &key_path).unwrap_or(&whole);
    Err(match reason {
        Reason::Unknown { what, name, known } => {
            let at = name_in(within, &name).unwrap_or(within.span());
            let nearest = nearest(&name, known.iter().copied()).map(str::to_owned);
            let known = known.iter().map(|&name| name.to_owned()).collect();
            let (path, line) = (origin.to_owned(), line_of(text, at.start));
            Error::UnknownKey { path, line, what, key: name, nearest, known }
        }
        Reason::Unfit { found, problem } => match locate_misfit::<T>(&whole, &key_path, &found, &problem) {
            Some((key_path, value)) => {
                refused(value.start, format!("`{}`: {}", dotted(&key_path), one_line(&problem)))
            }
            None => refused(within.span().start, one_line(&problem)),
        },
        Reason::Other(problem) => refused(within.span().start, one_line(&problem)),
    })
}

/// Name among `known` that is most similar to `key`, if any is similar.
pub fn nearest<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|name| (strsim::jaro_winkler(key, name), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.7).then_some(best.1)
}

fn dotted(key_path: &[PathSegment]) -> String {
    let mut text = String::new();
    for segment in key_path {
        match segment {
            PathSegment::Key(name) if text.is_empty() => text.push_str(name),
            PathSegment::Key(name) => text.extend([".", name]),
            PathSegment::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Value at a path, if it exists.
fn find<'v>(value: &'v Spanned<DeValue<'v>>, key_path: &[PathSegment]) -> Option<&'v Spanned<DeValue<'v>>> {
    key_path.iter().try_fold(value, |value, segment| match (value.get_ref(), segment) {
        (DeValue::Table(table), PathSegment::Key(name)) => table.get(name.as_str()),
        (DeValue::Array(items), PathSegment::Index(index)) => items.get(*index),
        _ => None,
    })
}

/// Span of the key `name` in a value, or of a string with that text.
fn name_in(value: &Spanned<DeValue<'_>>, name: &str) -> Option<Range<usize>> {
    match value.get_ref() {
        DeValue::String(text) => (text == name).then(|| value.span()),
        DeValue::Array(items) => items.iter().find_map(|item| name_in(item, name)),
        DeValue::Table(table) => {
            let key = table.keys().find(|key| key.get_ref() == name).map(Spanned::span);
            key.or_else(|| table.values().find_map(|value| name_in(value, name)))
        }
        _ => None,
    }
}

/// Location of a value that its type refuses. In a table with a tag serde does not report the path, so each value like
/// `found` is left out in turn: the one without which the refusal changes is meant.
fn locate_misfit<T: DeserializeOwned>(
    whole: &Spanned<DeValue<'_>>,
    key_path: &[PathSegment],
    found: &Found,
    problem: &str,
) -> Option<(Vec<PathSegment>, Range<usize>)> {
    let mut candidates = Vec::new();
    collect_alike(find(whole, key_path)?, &mut key_path.to_vec(), found, &mut candidates);
    let decides = |(key_path, _): &(Vec<PathSegment>, Range<usize>)| match T::deserialize(Reader::without(
        whole, key_path,
    )) {
        Err(Refusal { reason: Reason::Unfit { problem: now, .. }, .. }) => now != problem,
        Ok(_) | Err(_) => true,
    };
    if candidates.len() == 1 { candidates.pop() } else { candidates.into_iter().find(decides) }
}

/// Collects paths and spans of values like `found` below `value`, inner ones first.
fn collect_alike(
    value: &Spanned<DeValue<'_>>,
    key_path: &mut Vec<PathSegment>,
    found: &Found,
    candidates: &mut Vec<(Vec<PathSegment>, Range<usize>)>,
) {
    let mut child = |segment: PathSegment, value: &Spanned<DeValue<'_>>| {
        key_path.push(segment);
        collect_alike(value, key_path, found, candidates);
        key_path.pop();
    };
    match value.get_ref() {
        DeValue::Table(table) => {
            table.iter().for_each(|(key, value)| child(PathSegment::Key(key.get_ref().to_string()), value));
        }
        DeValue::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| child(PathSegment::Index(index), value));
        }
        _ => {}
    }
    if !key_path.is_empty() && found.is_like(value.get_ref()) {
        candidates.push((key_path.clone(), value.span()));
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count()
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Run {
        seed: u64,
        #[serde(default)]
        parts: Vec<Part>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
    enum Part {
        Round { radius: f64 },
        Square { side: f64 },
    }

    fn message(text: &str) -> String {
        parse::<Run>(text, Path::new("run.toml")).expect_err("the text is wrong").to_string()
    }

    #[test]
    fn a_sound_file_is_read() {
        let text =
            "seed = 3\n[[parts]]\nkind = \"round\"\nradius = 2\n[[parts]]\nkind = \"square\"\nside = 1.5";
        let run: Run = parse(text, Path::new("run.toml")).expect("sound");
        assert_eq!(run.seed, 3);
        assert!(matches!(run.parts[..], [Part::Round { radius: 2.0 }, Part::Square { side: 1.5 }]));
    }

    #[test]
    fn unknown_keys_name_line_and_neighbour() {
        let text = message("# a run\nsede = 3\n");
        assert_eq!(text, "run.toml:2: unknown key `sede`, did you mean `seed`?; known here: seed, parts");
        let text = message("seed = 3\n\n[[parts]]\nkind = \"round\"\nradus = 2\n");
        assert!(text.starts_with("run.toml:5: unknown key `radus`, did you mean `radius`?"), "{text}");
    }

    #[test]
    fn unknown_kinds_name_line_and_neighbour() {
        let text = message("seed = 3\n\n[[parts]]\nkind = \"sqare\"\nside = 2\n");
        assert!(text.starts_with("run.toml:4: unknown value `sqare`, did you mean `square`?"), "{text}");
    }

    #[test]
    fn values_of_another_type_name_their_key() {
        for (text, line, key) in [
            ("seed = \"three\"\n", 1, "`seed`: invalid type: string \"three\""),
            ("seed = -3\n", 1, "`seed`: invalid value: integer `-3`"),
            (
                "parts = [{ kind = \"round\", radius = 2 }]\nseed = 1.5\n",
                2,
                "`seed`: invalid type: floating point `1.5`",
            ),
            ("seed = 3\nparts = 4\n", 2, "`parts`: invalid type: integer `4`"),
            (
                "seed = 3\n[[parts]]\nkind = \"round\"\nradius = \"wide\"\n",
                4,
                "`parts[0].radius`: invalid type",
            ),
            (
                "seed = 3\n[[parts]]\nkind = \"round\"\nradius = 2\n[[parts]]\nkind = \"square\"\nside = true\n",
                7,
                "`parts[1].side`",
            ),
        ] {
            let found = message(text);
            assert!(found.starts_with(&format!("run.toml:{line}: {key}")), "{found}");
        }
    }

    #[test]
    fn integers_beyond_toml_are_refused() {
        for number in ["9223372036854775808", "18446744073709551615", "0x8000000000000000"] {
            let text = message(&format!("seed = {number}\n"));
            assert!(text.starts_with("run.toml:1: ") && text.contains("beyond the 64 signed bits"), "{text}");
        }
        assert!(parse::<Run>("seed = 9223372036854775807\nparts = []\n", Path::new("run.toml")).is_ok());
    }

    #[test]
    fn nothing_near_suggests_nothing() {
        assert_eq!(nearest("xyz", ["seed", "parts"]), None);
        assert_eq!(nearest("lr", []), None);
    }

    #[test]
    fn wrong_types_and_missing_keys_name_the_line() {
        let text = message("\nseed = \"three\"\n");
        assert!(
            text.starts_with("run.toml:2: `seed`: invalid type: string \"three\", expected u64"),
            "{text}"
        );
        assert!(message("parts = []\n").contains("missing field `seed`"));
        assert!(message("seed = \n").starts_with("run.toml:1: "));
    }
}
