//! Reader of JSON Lines: an object per line, of which only the needed fields are kept.

use std::fmt;
use std::io::{BufRead, Read};

use serde::de::{DeserializeSeed, Deserializer, Visitor};

use super::json_line::{JsonProblem, RawValue, is_name, is_number, members};
use super::{DEFAULT_ID_FIELD, FieldNames, Record, RecordSink, SourceFile, broken_line, check_size};
use crate::compressed::{self, Decompressed, FileKind, UTF8_BOM, is_html};
use crate::document::Document;
use crate::error::{Error, Result};

/// Longest line: a document whose characters are all escaped, and its other fields.
const MAX_LINE_BYTES: usize = 256 << 20;

pub(super) fn read(wanted: &FieldNames<'_>, file: &SourceFile<'_>, sink: RecordSink<'_>) -> Result<()> {
    let mut lines = compressed::open(file.path, file.progress)?;
    check_kind(&mut lines, file)?;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut limited = lines.by_ref().take(MAX_LINE_BYTES as u64 + 1);
        let count =
            limited.read_until(b'\n', &mut line).map_err(|error| compressed::explain(file.path, error))?;
        if count == 0 {
            return lines.check(file.planned);
        }
        let id = || format!("{}:{number}", file.name());
        let parsed = if count > MAX_LINE_BYTES {
            Err(format!("the line is longer than {MAX_LINE_BYTES} bytes; split the document"))
        } else {
            strip(&line, number).and_then(|line| parse(line, wanted, id))
        };
        match parsed {
            Ok(Some(document)) => sink(Record::Document(document))?,
            Ok(None) => {}
            Err(problem) => {
                let error = |problem: String| broken_line(file.path, number, problem);
                wanted.bad_line(id(), problem, sink, error)?;
                // The rest of a line that was too long.
                if line.last() != Some(&b'\n') {
                    lines.skip_until(b'\n').map_err(|error| compressed::explain(file.path, error))?;
                }
            }
        }
    }
    unreachable!("lines are counted until the file ends")
}

/// Refuses a file of another format, which is more than one bad line.
fn check_kind(lines: &mut Decompressed<'_>, file: &SourceFile<'_>) -> Result<()> {
    let head = lines.peek()?;
    let text = head.strip_prefix(UTF8_BOM).unwrap_or(head);
    let problem = match FileKind::of(head) {
        Some(kind) => kind.problem(),
        None if is_html(text) => "is an HTML or XML page, not JSON Lines; fetch the file again".to_owned(),
        None if text.trim_ascii_start().starts_with(b"[") => {
            "is not JSON Lines: it begins with `[`, as a JSON array does; write an object a line, as with `jq -c '.[]'`"
                .to_owned()
        }
        None => return Ok(()),
    };
    Err(Error::input(file.path, problem))
}

/// Line without a byte-order mark, which only the first line may have.
fn strip(line: &[u8], number: u64) -> Result<&[u8], String> {
    match line.strip_prefix(UTF8_BOM) {
        Some(rest) if number == 1 => Ok(rest),
        Some(_) => {
            Err("begins with a byte-order mark in the middle of the file: files were joined; remove it"
                .into())
        }
        None => Ok(line),
    }
}

/// Document of a line; `None` for a blank line.
fn parse(
    line: &[u8],
    wanted: &FieldNames<'_>,
    fallback: impl FnOnce() -> String,
) -> Result<Option<Document>, String> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let mut found = FieldValues { fields: vec![None; wanted.fields.len()], ..FieldValues::default() };
    members(line, |name, value| found.take(wanted, name, value)).map_err(|broken| broken.to_string())?;
    let text = found
        .text
        .ok_or_else(|| format!("the object has no field `{}`, which holds the text", wanted.text))?;
    check_size(text.len())?;
    let id = match (found.id, wanted.id) {
        (Some(id), _) => id,
        (None, None) => fallback(),
        (None, Some(field)) => {
            return Err(format!("the object has no field `{field}`, which `id_field` names"));
        }
    };
    Ok(Some(Document { id, text, fields: found.fields }))
}

/// Values of the fields of an object; of several with one name the last counts.
#[derive(Default)]
struct FieldValues {
    text: Option<String>,
    id: Option<String>,
    fields: Vec<Option<String>>,
}

impl FieldValues {
    fn take(&mut self, wanted: &FieldNames<'_>, name: &[u8], value: RawValue<'_>) -> Result<(), JsonProblem> {
        if let Some(slot) = wanted.fields.iter().position(|field| is_name(name, field)) {
            self.fields[slot] = scalar(wanted.fields[slot], value)?;
        }
        match wanted.id {
            Some(id) if is_name(name, id) => self.id = scalar(id, value)?,
            // A default id field of another type is ignored.
            None if is_name(name, DEFAULT_ID_FIELD) => {
                self.id = scalar(DEFAULT_ID_FIELD, value).unwrap_or(None)
            }
            _ => {}
        }
        if is_name(name, wanted.text) {
            self.text = Some(text(wanted.text, value)?);
        }
        Ok(())
    }
}

/// Value of a string.
fn text(field: &str, value: RawValue<'_>) -> Result<String, JsonProblem> {
    if value.bytes[0] == b'"' {
        return string(field, value);
    }
    let found = match value.bytes[0] {
        b'{' => "an object".into(),
        b'[' => "a list".into(),
        _ => String::from_utf8_lossy(value.bytes),
    };
    Err(JsonProblem { column: value.column, what: format!("`{field}` is {found}, expected a string") })
}

/// Value of a string, number or boolean as text, a number as it was written; `None` for null.
fn scalar(field: &str, value: RawValue<'_>) -> Result<Option<String>, JsonProblem> {
    match value.bytes {
        [b'"', ..] => string(field, value).map(Some),
        b"null" => Ok(None),
        word if word == b"true" || word == b"false" || is_number(word) => {
            Ok(Some(String::from_utf8_lossy(word).into_owned()))
        }
        other => {
            let found = match other[0] {
                b'{' => "an object".into(),
                b'[' => "a list".into(),
                _ => String::from_utf8_lossy(other),
            };
            let what = format!("found {found}, expected a string, number, boolean or null in `{field}`");
            Err(JsonProblem { column: value.column, what })
        }
    }
}

fn string(field: &str, value: RawValue<'_>) -> Result<String, JsonProblem> {
    let mut reader = serde_json::Deserializer::from_slice(value.bytes);
    // serde_json counts from the beginning of what it was given.
    RoundedString.deserialize(&mut reader).map_err(|error| JsonProblem {
        column: value.column + error.column().saturating_sub(1),
        what: format!("{} in `{field}`", flaw(value.bytes)),
    })
}

/// Problem of a string whose quotes are right.
fn flaw(quoted: &[u8]) -> &'static str {
    if std::str::from_utf8(quoted).is_err() {
        "bytes that are not UTF-8"
    } else if quoted.iter().any(|&byte| byte < b' ') {
        "a control character that is not escaped"
    } else {
        "an escape that JSON does not have, or half of a surrogate pair,"
    }
}

/// String whose capacity is rounded up to a power of two, so that freed memory fits later texts.
struct RoundedString;

impl<'de> DeserializeSeed<'de> for RoundedString {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for RoundedString {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        let mut owned = String::with_capacity(text.len().next_power_of_two());
        owned.push_str(text);
        Ok(owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnBadLine;

    fn wanted<'a>(id: Option<&'a str>, fields: Vec<&'a str>) -> FieldNames<'a> {
        FieldNames { text: "text", id, fields, on_bad_line: OnBadLine::Fail }
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
    fn numbers_keep_their_text() {
        for number in ["123456789012345678901", "1.0", "-0", "1e2", "0.10"] {
            let line = format!("{{\"text\": \"a\", \"id\": {number}, \"lang\": {number}}}");
            let document = parsed(&line, None).expect("sound").expect("not blank");
            assert_eq!(document.id, number);
            assert_eq!(document.fields, [Some(number.to_owned()), Some(number.to_owned())]);
        }
    }

    #[test]
    fn what_is_not_wanted_spoils_nothing() {
        for rest in [
            r#""\ud800": 1"#,
            r#""x": "\udc00 \q""#,
            r#""x": [NaN, {"y": -Infinity}]"#,
            r#""id": {"a": NaN}"#,
            r#""id": "\ud800""#,
            r#""id": Infinity"#,
        ] {
            let wanted = wanted(None, vec!["lang"]);
            let line = format!("{{{rest}, \"text\": \"a\"}}");
            let document = parse(line.as_bytes(), &wanted, || "f:7".into()).expect(rest).expect("not blank");
            assert_eq!((document.id.as_str(), document.text.as_str()), ("f:7", "a"));
        }
        assert!(parse(b"{\"x\": \"\xff\", \"text\": \"a\"}", &wanted(None, vec![]), String::new).is_ok());
    }

    #[test]
    fn what_is_wanted_is_named_where_it_is_refused() {
        let problem = |line: &str| parsed(line, Some("id")).expect_err("broken");
        let surrogate = problem(r#"{"id": "a", "text": "\ud800"}"#);
        assert!(
            surrogate.starts_with("broken JSON at column 2") && surrogate.ends_with("in `text`"),
            "{surrogate}"
        );
        let expected =
            "broken JSON at column 24: found NaN, expected a string, number, boolean or null in `lang`";
        assert_eq!(problem(r#"{"text": "a", "lang": NaN}"#), expected.replace("24", "23"));
        assert!(
            problem(r#"{"id": [1], "text": "a"}"#)
                .ends_with("found a list, expected a string, number, boolean or null in `id`")
        );
    }

    #[test]
    fn blank_lines_are_no_documents() {
        assert_eq!(parsed(" \r\n", None), Ok(None));
        assert_eq!(strip(b"\xef\xbb\xbf{}", 1), Ok(&b"{}"[..]));
        assert!(strip(b"\xef\xbb\xbf{}", 2).expect_err("joined").contains("byte-order mark"));
    }
}
