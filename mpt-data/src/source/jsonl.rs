//! JSON Lines: an object per line, of which only the wanted fields are kept.

use std::fmt;
use std::io::{BufRead, Read};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::{DEFAULT_ID, InputFile, Record, Sink, Wanted, broken_line, check_size};
use crate::compressed;
use crate::document::Document;
use crate::error::Result;

/// The longest line: a document whose characters are all escaped, and its other fields.
const MAX_LINE_BYTES: usize = 256 << 20;

pub(super) fn read(wanted: &Wanted<'_>, file: &InputFile<'_>, sink: Sink<'_>) -> Result<()> {
    let mut lines = compressed::open(file.path, file.progress)?;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut limited = lines.by_ref().take(MAX_LINE_BYTES as u64 + 1);
        let count =
            limited.read_until(b'\n', &mut line).map_err(|error| compressed::explain(file.path, error))?;
        if count == 0 {
            return Ok(());
        }
        let id = || format!("{}:{number}", file.name);
        let parsed = if count > MAX_LINE_BYTES {
            Err(format!("the line is longer than {MAX_LINE_BYTES} bytes; split the document"))
        } else {
            parse(strip(&line, number), wanted, id)
        };
        match parsed {
            Ok(Some(document)) => sink(Record::Document(document))?,
            Ok(None) => {}
            Err(problem) => {
                let error = |problem: String| broken_line(file.path, number, problem);
                wanted.bad_line(id(), problem, sink, error)?;
                // What is left of a line that was too long.
                if line.last() != Some(&b'\n') {
                    lines.skip_until(b'\n').map_err(|error| compressed::explain(file.path, error))?;
                }
            }
        }
    }
    unreachable!("lines are counted until the file ends")
}

/// A byte-order mark before the first line is no part of it.
fn strip(line: &[u8], number: u64) -> &[u8] {
    match line.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) if number == 1 => rest,
        _ => line,
    }
}

/// The document of a line; `None` for a blank line.
fn parse(
    line: &[u8],
    wanted: &Wanted<'_>,
    fallback: impl FnOnce() -> String,
) -> Result<Option<Document>, String> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let mut reader = serde_json::Deserializer::from_slice(line);
    let record = Fields(wanted).deserialize(&mut reader).and_then(|record| reader.end().map(|()| record));
    let record = record.map_err(|error| describe(&error))?;
    let text = record
        .text
        .ok_or_else(|| format!("the object has no field `{}`, which holds the text", wanted.text))?;
    check_size(text.len())?;
    let id = match (record.id, wanted.id) {
        (Some(id), _) => id,
        (None, None) => fallback(),
        (None, Some(field)) => {
            return Err(format!("the object has no field `{field}`, which `id_field` names"));
        }
    };
    Ok(Some(Document { id, text, fields: record.fields }))
}

/// serde_json counts lines inside the line it was given; only the column helps.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("broken JSON at column {}: {what}", error.column())
}

#[derive(Default)]
struct Found {
    text: Option<String>,
    id: Option<String>,
    fields: Vec<Option<String>>,
}

struct Fields<'a>(&'a Wanted<'a>);

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let wanted = self.0;
        let mut record = Found { fields: vec![None; wanted.fields.len()], ..Found::default() };
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let is_text = key == wanted.text;
            let is_id = key == wanted.id.unwrap_or(DEFAULT_ID);
            let slot = wanted.fields.iter().position(|field| *field == key);
            if !is_text && !is_id && slot.is_none() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value_seed(Scalar(&key))?;
            if let Some(slot) = slot {
                record.fields[slot] = value.clone().map(|(_, value)| value);
            }
            if is_id {
                record.id = value.clone().map(|(_, value)| value);
            }
            if is_text {
                record.text = match value {
                    Some((true, text)) => Some(text),
                    Some((false, other)) => {
                        return Err(A::Error::custom(format!("`{key}` is {other}, expected a string")));
                    }
                    None => return Err(A::Error::custom(format!("`{key}` is null, expected a string"))),
                };
            }
        }
        Ok(record)
    }
}

/// A string, number, boolean or null, as text; with whether it was a string.
struct Scalar<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Scalar<'_> {
    type Value = Option<(bool, String)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar<'_> {
    type Value = Option<(bool, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string, number, boolean or null in `{}`", self.0)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        // Sizes of few kinds: memory that one text had serves the next.
        let mut owned = String::with_capacity(text.len().next_power_of_two());
        owned.push_str(text);
        Ok(Some((true, owned)))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Some((true, text)))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some((false, value.to_string())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some((false, value.to_string())))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some((false, value.to_string())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some((false, value.to_string())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnBadLine;

    fn wanted<'a>(id: Option<&'a str>, fields: Vec<&'a str>) -> Wanted<'a> {
        Wanted { text: "text", id, fields, on_bad_line: OnBadLine::Fail }
    }

    fn parsed(line: &str, id: Option<&str>) -> Result<Option<Document>, String> {
        parse(line.as_bytes(), &wanted(id, vec!["lang", "id"]), || "f:7".into())
    }

    #[test]
    fn wanted_fields_are_kept_and_others_skipped() {
        let line = r#"{"meta": {"deep": [1, {"x": null}]}, "lang": "en", "text": "a\u00e9\n", "id": 12, "n": 1e400}"#;
        let document = parsed(line, None).expect("sound").expect("not blank");
        assert_eq!((document.id.as_str(), document.text.as_str()), ("12", "aé\n"));
        assert_eq!(document.fields, [Some("en".into()), Some("12".into())]);
    }

    #[test]
    fn ids_fall_back_to_the_line_unless_they_were_asked_for() {
        let document = parsed(r#"{"text": "a", "id": null}"#, None).expect("sound").expect("not blank");
        assert_eq!((document.id.as_str(), &document.fields[..]), ("f:7", &[None, None][..]));
        let error = parsed(r#"{"text": "a"}"#, Some("doc")).expect_err("asked for");
        assert_eq!(error, "the object has no field `doc`, which `id_field` names");
    }

    #[test]
    fn broken_lines_say_what_and_where() {
        let problem = |line: &str| parsed(line, None).expect_err("broken");
        assert!(
            problem(r#"{"text": "a""#).starts_with("broken JSON at column 12: EOF"),
            "{}",
            problem(r#"{"text": "a""#)
        );
        assert!(problem(r#"{"text": 5}"#).contains("`text` is 5, expected a string"));
        assert!(problem(r#"{"text": null}"#).contains("`text` is null"));
        assert!(
            problem(r#"{"text": "a", "lang": ["en"]}"#)
                .contains("expected a string, number, boolean or null in `lang`")
        );
        assert!(problem(r#"{"body": "a"}"#).contains("no field `text`"));
        assert!(problem("[1]").contains("expected an object"));
        assert!(problem("{\"text\": \"a\"} x").contains("trailing characters"));
        assert!(parse(b"{\"text\": \"\xff\"}", &wanted(None, vec![]), String::new).is_err());
        assert!(problem(&format!("{{\"x\": {}", "[".repeat(1 << 20))).contains("EOF while parsing"));
    }

    #[test]
    fn blank_lines_are_no_documents() {
        assert_eq!(parsed(" \r\n", None), Ok(None));
        assert_eq!(strip(b"\xef\xbb\xbf{}", 1), b"{}");
        assert_eq!(strip(b"\xef\xbb\xbf{}", 2).len(), 5);
    }
}
