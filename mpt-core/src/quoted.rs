//! Quotation of untrusted text in messages.

/// Characters kept of a long text: at the start, and at the end.
const MAX_CHARS: (usize, usize) = (300, 60);

/// Text for a message: control characters escaped, the middle of a long text elided.
pub fn quoted(text: &str) -> String {
    let escaped = |part: &str| -> String {
        let escaped = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
        part.chars().map(escaped).collect()
    };
    let head = text.char_indices().nth(MAX_CHARS.0).map_or(text.len(), |(at, _)| at);
    let tail = text.char_indices().rev().nth(MAX_CHARS.1 - 1).map_or(0, |(at, _)| at);
    if head < tail {
        format!("{}…{}", escaped(&text[..head]), escaped(&text[tail..]))
    } else {
        escaped(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stay_short_and_on_their_line() {
        assert_eq!(quoted("a.weight"), "a.weight");
        assert_eq!(quoted("a\n\u{1b}[2J"), "a\\n\\u{1b}[2J");
        let long = quoted(&format!("{}{}", "é".repeat(1 << 20), " at line 7"));
        assert!(long.starts_with("éé") && long.ends_with("… at line 7".trim_start_matches('…')), "{long}");
        assert_eq!(long.chars().count(), MAX_CHARS.0 + 1 + MAX_CHARS.1);
    }
}
