//! Text of files in messages.

/// Characters that a message shows of a file's text: the first, and the last.
const SHOWN: (usize, usize) = (300, 60);

/// Text of a file as a message shows it: control characters escaped, the middle of a long one left out.
pub fn quoted(text: &str) -> String {
    let escaped = |part: &str| -> String {
        let escaped = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
        part.chars().map(escaped).collect()
    };
    let head = text.char_indices().nth(SHOWN.0).map_or(text.len(), |(at, _)| at);
    let tail = text.char_indices().rev().nth(SHOWN.1 - 1).map_or(0, |(at, _)| at);
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
        assert_eq!(long.chars().count(), SHOWN.0 + 1 + SHOWN.1);
    }
}
