//! Scanner of a JSON object in one line: its members, with the bytes of their values as written.
//!
//! Only the structure is checked: the ends of strings, numbers and brackets. The content of a string is decoded by its user,
//! so that a bad value of an unused field spoils no line. As in Python, `NaN` and `Infinity` are numbers.

use std::fmt;

/// Problem of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonProblem {
    /// Byte of the line, from 1.
    pub(super) column: usize,
    /// Problem, in words.
    pub(super) what: String,
}

impl fmt::Display for JsonProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken JSON at column {}: {}", self.column, self.what)
    }
}

/// Value as written.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawValue<'a> {
    /// Bytes, without white space around them.
    pub(super) bytes: &'a [u8],
    /// First byte in the line, from 1.
    pub(super) column: usize,
}

/// Calls `on_member` with every member of the object in a line: the bytes of its name, with the quotes, and its value.
pub(super) fn members<'a>(
    line: &'a [u8],
    mut on_member: impl FnMut(&'a [u8], RawValue<'a>) -> Result<(), JsonProblem>,
) -> Result<(), JsonProblem> {
    let mut scan = Scanner { line, at: 0 };
    scan.space();
    if !scan.takes(b'{') {
        return Err(scan.broken("expected an object"));
    }
    scan.space();
    if !scan.takes(b'}') {
        loop {
            let name = scan.name()?;
            let column = scan.at + 1;
            on_member(name, RawValue { bytes: scan.value()?, column })?;
            scan.space();
            match scan.peek("an object")? {
                b',' => scan.at += 1,
                b'}' => break scan.at += 1,
                _ => return Err(scan.broken("expected `,` or `}`")),
            }
            scan.space();
        }
    }
    scan.space();
    if scan.at < line.len() { Err(scan.broken("trailing characters")) } else { Ok(()) }
}

/// Whether the bytes of a name, with the quotes, decode to `name`.
pub(super) fn is_name(raw: &[u8], name: &str) -> bool {
    let inside = &raw[1..raw.len() - 1];
    if !inside.contains(&b'\\') {
        return inside == name.as_bytes();
    }
    serde_json::from_slice::<String>(raw).is_ok_and(|found| found == name)
}

/// Whether a word is a JSON number.
pub(super) fn is_number(word: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = word.strip_prefix(b"-").unwrap_or(word);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    let mut rest = &rest[whole..];
    if let [b'.', fraction @ ..] = rest {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    match rest {
        [] => true,
        [b'e' | b'E', exponent @ ..] => {
            let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
            !exponent.is_empty() && digits(exponent) == exponent.len()
        }
        _ => false,
    }
}

struct Scanner<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn space(&mut self) {
        let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.at += self.line[self.at..].iter().take_while(is_space).count();
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_there = self.line.get(self.at) == Some(&byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn peek(&self, inside: &str) -> Result<u8, JsonProblem> {
        self.line.get(self.at).copied().ok_or_else(|| self.ended(inside))
    }

    /// Scans a name and its colon, up to the value.
    fn name(&mut self) -> Result<&'a [u8], JsonProblem> {
        if self.peek("an object")? != b'"' {
            return Err(self.broken("expected a name in quotes"));
        }
        let name = self.string()?;
        self.space();
        self.peek("an object")?;
        if !self.takes(b':') {
            return Err(self.broken("expected `:`"));
        }
        self.space();
        Ok(name)
    }

    /// Scans a value of any depth, and returns its bytes.
    fn value(&mut self) -> Result<&'a [u8], JsonProblem> {
        let (from, mut open) = (self.at, Vec::new());
        loop {
            if self.enter_or_skip(&mut open)? {
                continue;
            }
            if self.close_all(&mut open)? {
                return Ok(&self.line[from..self.at]);
            }
        }
    }

    /// Scans a scalar, or enters a list or object, whose closing bracket is pushed on `open`.
    fn enter_or_skip(&mut self, open: &mut Vec<u8>) -> Result<bool, JsonProblem> {
        let close = match self.peek("a value")? {
            b'{' => b'}',
            b'[' => b']',
            b'"' => return self.string().map(|_| false),
            _ => return self.word().map(|()| false),
        };
        self.at += 1;
        self.space();
        if self.takes(close) {
            return Ok(false);
        }
        open.push(close);
        if close == b'}' {
            self.name()?;
        }
        Ok(true)
    }

    /// Scans closing brackets after a value; `true` when none is open any more, `false` before a next value.
    fn close_all(&mut self, open: &mut Vec<u8>) -> Result<bool, JsonProblem> {
        while let Some(&close) = open.last() {
            self.space();
            match self.peek(if close == b'}' { "an object" } else { "a list" })? {
                b',' => {
                    self.at += 1;
                    self.space();
                    if close == b'}' {
                        self.name()?;
                    }
                    return Ok(false);
                }
                found if found == close => {
                    self.at += 1;
                    open.pop();
                }
                _ => return Err(self.broken(&format!("expected `,` or `{}`", char::from(close)))),
            }
        }
        Ok(true)
    }

    /// Scans a string, and returns its bytes with the quotes.
    fn string(&mut self) -> Result<&'a [u8], JsonProblem> {
        let from = self.at;
        self.at += 1;
        loop {
            let rest = &self.line[self.at.min(self.line.len())..];
            let Some(next) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
                return Err(self.ended("a string"));
            };
            let is_end = rest[next] == b'"';
            self.at += next + if is_end { 1 } else { 2 };
            if is_end {
                return Ok(&self.line[from..self.at]);
            }
        }
    }

    /// Scans a number or a keyword.
    fn word(&mut self) -> Result<(), JsonProblem> {
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        let length = self.line[self.at..].iter().take_while(is_part).count();
        let word = &self.line[self.at..self.at + length];
        let known: [&[u8]; 6] = [b"null", b"true", b"false", b"NaN", b"Infinity", b"-Infinity"];
        if !known.contains(&word) && !is_number(word) {
            return Err(self.broken("expected a value"));
        }
        self.at += length;
        Ok(())
    }

    fn broken(&self, what: &str) -> JsonProblem {
        JsonProblem { column: (self.at + 1).min(self.line.len()), what: what.to_owned() }
    }

    fn ended(&self, inside: &str) -> JsonProblem {
        JsonProblem { column: self.line.len(), what: format!("EOF while parsing {inside}") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// A name and a value, as they were written.
    type Member = (Vec<u8>, Vec<u8>);

    /// The members of a line, as this reader finds them.
    fn found(line: &[u8]) -> Result<Vec<Member>, JsonProblem> {
        let mut all = Vec::new();
        members(line, |name, value| {
            all.push((name.to_vec(), value.bytes.to_vec()));
            Ok(())
        })?;
        Ok(all)
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(".{0,6}", inner, 0..4)
                    .prop_map(|map| Value::from(map.into_iter().collect::<serde_json::Map<_, _>>())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn members_are_those_of_another_reader(map in prop::collection::btree_map(".{0,6}", value(), 0..5), pretty: bool) {
            let write = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            let text = write(&map).expect("finite");
            let members = found(text.as_bytes()).expect("JSON");
            prop_assert_eq!(members.len(), map.len());
            for ((name, value), (expected_name, expected)) in members.iter().zip(&map) {
                prop_assert!(is_name(name, expected_name));
                prop_assert_eq!(&serde_json::from_slice::<Value>(value).expect("JSON"), expected);
            }
        }

        #[test]
        fn what_another_reader_takes_is_taken(map in prop::collection::btree_map("[a-c\"\\\\]{0,3}", value(), 0..4), edits in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&b"{}[]\",:\\0-+.eE1 tnu\xff"[..])), 0..3)) {
            let mut bytes = serde_json::to_vec(&map).expect("finite");
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let is_json = serde_json::from_slice::<std::collections::BTreeMap<String, serde::de::IgnoredAny>>(&bytes).is_ok();
            if is_json {
                prop_assert!(found(&bytes).is_ok(), "{}", String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn broken_lines_are_refused_in_place() {
        for (line, column, what) in [
            ("[1]", 1, "expected an object"),
            ("{\"a\": 1} x", 10, "trailing characters"),
            ("{\"a\": 1,}", 9, "expected a name in quotes"),
            ("{\"a\": [1,]}", 10, "expected a value"),
            ("{\"a\": 01}", 7, "expected a value"),
            ("{\"a\": nul}", 7, "expected a value"),
            ("{\"a\" 1}", 6, "expected `:`"),
            ("{\"a\": [1}", 9, "expected `,` or `]`"),
            ("{\"a\": \"x\\", 9, "EOF while parsing a string"),
            ("{\"a\": {\"b\"", 10, "EOF while parsing an object"),
            ("{", 1, "EOF while parsing an object"),
        ] {
            assert_eq!(found(line.as_bytes()), Err(JsonProblem { column, what: what.into() }), "{line}");
        }
        assert!(found(b"{\"a\": [NaN, -Infinity, \"\\ud800\", \"\xff\"], \"\\ud800\": Infinity}").is_ok());
    }

    #[test]
    fn numbers_are_those_of_json() {
        for word in ["0", "-0", "12", "1.0", "1e5", "1E+05", "-1.5e-3", "123456789012345678901"] {
            assert!(is_number(word.as_bytes()), "{word}");
        }
        for word in ["", "-", "01", "1.", ".5", "1e", "1e+", "+1", "0x1", "NaN", "1.0.0"] {
            assert!(!is_number(word.as_bytes()), "{word}");
        }
    }
}
