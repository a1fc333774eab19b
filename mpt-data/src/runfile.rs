//! Run files: TOML read into a type, where every key the type does not know is an error with line and nearest name.
//!
//! The type says which keys exist, by `#[serde(deny_unknown_fields)]` on each of its tables.

use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Reads the text of a run file; `origin` is named in errors.
///
/// # Errors
/// [`Error::UnknownKey`] for a key or kind that `T` does not have, [`Error::RunFileSyntax`] for everything else.
pub fn parse<T: DeserializeOwned>(text: &str, origin: &Path) -> Result<T> {
    toml::from_str(text).map_err(|error| explain::<T>(&error, text, origin))
}

/// Of `known`, the name that a writer of `key` most probably meant.
pub fn nearest<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|name| (strsim::jaro_winkler(key, name), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.7).then_some(best.1)
}

fn explain<T: DeserializeOwned>(error: &toml::de::Error, text: &str, origin: &Path) -> Error {
    let path = origin.to_owned();
    let span = error.span().unwrap_or(0..text.len());
    let message = error.message();
    let Some((what, key, known)) = unknown(message) else {
        let (line, problem) = match refused_key::<T>(text, message) {
            Some(steps) => {
                let last = steps.iter().rev().find_map(Step::name).unwrap_or_default();
                (
                    line_of(text, find(text, span, last)),
                    format!("`{}`: {}", dotted(&steps), one_line(message)),
                )
            }
            None => (line_of(text, span.start), one_line(message)),
        };
        return Error::RunFileSyntax { path, line, problem };
    };
    let line = line_of(text, find(text, span, key));
    let nearest = nearest(key, known.iter().map(String::as_str)).map(str::to_owned);
    Error::UnknownKey { path, line, what, key: key.to_owned(), nearest, known }
}

/// A step on the way to a value: a key of a table, or a place in a list.
#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Place(usize),
}

impl Step {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Key(name) => Some(name),
            Self::Place(_) => None,
        }
    }
}

fn dotted(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Key(name) if text.is_empty() => text.push_str(name),
            Step::Key(name) => text.extend([".", name]),
            Step::Place(place) => text.push_str(&format!("[{place}]")),
        }
    }
    text
}

/// The value that the type refuses with this message: the one without which it says something else. Serde loses the way
/// to it in tables that say their kind.
fn refused_key<T: DeserializeOwned>(text: &str, message: &str) -> Option<Vec<Step>> {
    if !message.starts_with("invalid ") {
        return None;
    }
    let whole: toml::Table = text.parse().ok()?;
    let whole = toml::Value::Table(whole);
    let mut values = Vec::new();
    list_values(&whole, &mut Vec::new(), &mut values);
    let refused = |(steps, shown): &(Vec<Step>, String)| {
        let mut rest = whole.clone();
        remove(&mut rest, steps);
        let now = rest.try_into::<T>();
        message.contains(shown) && now.err().is_none_or(|error| error.message() != message)
    };
    values.into_iter().find(refused).map(|(steps, _)| steps)
}

/// A value as serde names what it did not expect.
fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => format!("string {text:?}"),
        toml::Value::Integer(number) => format!("integer `{number}`"),
        toml::Value::Float(_) => "floating point `".to_owned(),
        toml::Value::Boolean(value) => format!("boolean `{value}`"),
        toml::Value::Datetime(_) | toml::Value::Table(_) => "map".to_owned(),
        toml::Value::Array(_) => "sequence".to_owned(),
    }
}

/// The ways to all values, each with the value as [`shown`]; what is in tables first.
fn list_values(value: &toml::Value, way: &mut Vec<Step>, found: &mut Vec<(Vec<Step>, String)>) {
    let mut below = |step: Step, value: &toml::Value| {
        way.push(step);
        list_values(value, way, found);
        way.pop();
    };
    match value {
        toml::Value::Table(table) => {
            table.iter().for_each(|(key, value)| below(Step::Key(key.clone()), value));
        }
        toml::Value::Array(items) => {
            items.iter().enumerate().for_each(|(place, value)| below(Step::Place(place), value));
        }
        _ => {}
    }
    if !way.is_empty() {
        found.push((way.clone(), shown(value)));
    }
}

/// Takes a key or an item of a list away.
fn remove(value: &mut toml::Value, steps: &[Step]) {
    match (value, steps) {
        (toml::Value::Table(table), [Step::Key(key)]) => {
            table.remove(key);
        }
        (toml::Value::Table(table), [Step::Key(key), rest @ ..]) => {
            if let Some(value) = table.get_mut(key) {
                remove(value, rest);
            }
        }
        (toml::Value::Array(items), [Step::Place(place)]) if *place < items.len() => {
            items.remove(*place);
        }
        (toml::Value::Array(items), [Step::Place(place), rest @ ..]) => {
            if let Some(value) = items.get_mut(*place) {
                remove(value, rest);
            }
        }
        _ => {}
    }
}

/// Takes serde's sentence "unknown field `a`, expected one of `b`, `c`" apart.
fn unknown(message: &str) -> Option<(&'static str, &str, Vec<String>)> {
    let (what, rest) = match message.strip_prefix("unknown field `") {
        Some(rest) => ("key", rest),
        None => ("value", message.strip_prefix("unknown variant `")?),
    };
    let (key, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((what, key, known))
}

/// Where the name stands: in `span`, or after it, since the span of a table may be that of its header alone.
fn find(text: &str, span: Range<usize>, name: &str) -> usize {
    let within = |range: Range<usize>| find_word(text.get(range.clone())?, name).map(|at| range.start + at);
    within(span.clone()).or_else(|| within(span.end..text.len())).unwrap_or(span.start)
}

fn find_word(text: &str, word: &str) -> Option<usize> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let whole = |at: usize| !text[..at].ends_with(is_name) && !text[at + word.len()..].starts_with(is_name);
    text.match_indices(word).map(|(at, _)| at).find(|&at| whole(at))
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
