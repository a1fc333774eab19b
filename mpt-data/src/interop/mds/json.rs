//! JSON text exactly as Python's `json.dumps` writes it: `, ` and `: ` as separators, and ASCII alone.

use serde_json::Value;

/// Appends a value; objects keep their order.
pub(super) fn write(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => quote(text, out),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (at, (key, field)) in fields.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                quote(key, out);
                out.push_str(": ");
                write(field, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='\u{7f}' => out.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_python() {
        let value = serde_json::json!({"b": [1, null, true, []], "a": {"x": "é\u{1}\n\"\\𝄞\u{7f}"}});
        let mut text = String::new();
        write(&value, &mut text);
        assert_eq!(
            text,
            "{\"b\": [1, null, true, []], \"a\": {\"x\": \"\\u00e9\\u0001\\n\\\"\\\\\\ud834\\udd1e\u{7f}\"}}"
        );
    }
}
