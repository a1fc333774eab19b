//! `pii`: e-mail addresses and public IPv4 addresses, replaced by fixed stand-ins.
//!
//! The stand-ins are names set aside for examples (RFC 2606, RFC 5737): replacing again changes nothing, and no stand-in is
//! anybody's. datatrove draws from lists in turn, so its output depends on the order of documents, and its stand-ins for
//! addresses are addresses of somebody.
//!
//! - An e-mail address: letters, digits and ``.!#$%&'*+/=?^_`{|}~-`` from the first letter or digit on, `@`, and two or more
//!   labels of letters, digits and inner `-` divided by single dots, the last of two letters or more.
//! - An IPv4 address: four numbers from 0 to 255 without leading zeros, divided by dots, with no letter, digit, `_` or `-`
//!   next to them, nor a further number behind a dot. It is public unless it lies in a range set aside (RFC 6890) or for
//!   multicast.

use std::net::Ipv4Addr;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{DocumentView, DropReason, InvalidKey, Rule};

/// Replacement of e-mail addresses.
const EMAIL: &str = "email@example.com";
/// Replacement of public IPv4 addresses.
const IPV4: &str = "192.0.2.1";

/// Addresses to replace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pii {
    /// Whether e-mail addresses become `email@example.com`.
    pub emails: bool,
    /// Whether public IPv4 addresses become `192.0.2.1`.
    pub ipv4: bool,
}

impl Default for Pii {
    fn default() -> Self {
        Self { emails: true, ipv4: true }
    }
}

impl Pii {
    pub(super) fn check(&self) -> Result<(), InvalidKey> {
        if self.emails || self.ipv4 {
            return Ok(());
        }
        Err(InvalidKey::new("", "a filter that replaces nothing", "`emails` or `ipv4` to be true"))
    }
}

impl Rule for Pii {
    fn apply(&self, view: &mut DocumentView<'_>) -> Option<DropReason> {
        if self.emails
            && let Some(text) = replace(&view.text, &emails(&view.text), EMAIL)
        {
            view.edit(text);
        }
        if self.ipv4
            && let Some(text) = replace(&view.text, &addresses(&view.text), IPV4)
        {
            view.edit(text);
        }
        None
    }
}

/// Text with `by` in place of some ranges; `None` without ranges.
fn replace(text: &str, ranges: &[Range<usize>], by: &str) -> Option<String> {
    if ranges.is_empty() {
        return None;
    }
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for range in ranges {
        out.push_str(&text[at..range.start]);
        out.push_str(by);
        at = range.end;
    }
    out.push_str(&text[at..]);
    Some(out)
}

/// Ranges of e-mail addresses. One that begins where another ends is one with it: else its stand-in could be read as a
/// part of the other's.
fn emails(text: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices('@') {
        let floor = ranges.last().map_or(0, |range| range.end);
        if at < floor {
            continue;
        }
        let run = local_part(&text[floor..at]);
        let local = run.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let Some(domain) = domain(&text[at + 1..]).filter(|_| !local.is_empty()) else { continue };
        let end = at + 1 + domain;
        match ranges.last_mut() {
            Some(last) if at - run.len() == last.end => last.end = end,
            _ => ranges.push(at - local.len()..end),
        }
    }
    ranges
}

/// Characters at the end of a text that may stand before `@`.
fn local_part(text: &str) -> &str {
    let is_local = |byte: &u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(byte);
    let length = text.as_bytes().iter().rev().take_while(|byte| is_local(byte)).count();
    &text[text.len() - length..]
}

/// Length of the longest domain that a text begins with.
fn domain(text: &str) -> Option<usize> {
    let is_inside = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'.';
    let run = &text[..text.bytes().take_while(|byte| is_inside(byte)).count()];
    let (mut at, mut longest) = (0, None);
    for (index, label) in run.split('.').enumerate() {
        if label.is_empty() || label.starts_with('-') || label.ends_with('-') {
            break;
        }
        at += label.len() + usize::from(index > 0);
        if index > 0 && label.len() >= 2 && label.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            longest = Some(at);
        }
    }
    longest
}

/// Ranges of public IPv4 addresses.
fn addresses(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let is_inside = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let touches = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let (mut ranges, mut at) = (Vec::new(), 0);
    while let Some(dot) = text[at..].find('.').map(|offset| at + offset) {
        let start = dot - bytes[at..dot].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let run = bytes[start..].iter().take_while(|byte| is_inside(byte)).count();
        at = start + run;
        // A dot at the end is that of a sentence.
        let end = start + text[start..at].trim_end_matches('.').len();
        if at - end > 1 || text[..start].ends_with(touches) || text[at..].starts_with(touches) {
            continue;
        }
        if text[start..end].parse::<Ipv4Addr>().is_ok_and(is_public) {
            ranges.push(start..end);
        }
    }
    ranges
}

fn is_public(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let set_aside = a == 0
        || a >= 224
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b));
    !set_aside
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::outcome;
    use super::*;

    fn replaced(text: &str) -> String {
        outcome(&Pii::default(), text).expect("nothing is dropped")
    }

    #[test]
    fn emails_are_replaced_and_nothing_around_them() {
        for (text, expected) in [
            ("Write to Jane.Doe+x@mail.example.co.uk.", "Write to email@example.com."),
            ("<mailto:a_b@c-d.org>, 'x@y.de'", "<mailto:email@example.com>, 'email@example.com'"),
            ("a@b.com,c@d.com", "email@example.com,email@example.com"),
            ("a@b.com.c@d.com x@y.com@z.com", "email@example.com email@example.com@z.com"),
            (
                "é@b.com x@b x@.com x@b..com x@b.c x@-b.com @b.com",
                "é@b.com x@b x@.com x@b..com x@b.c x@-b.com @b.com",
            ),
            ("a@b.com-", "a@b.com-"),
            ("a@b.co.1x", "email@example.com.1x"),
        ] {
            assert_eq!(replaced(text), expected);
        }
    }

    #[test]
    fn public_addresses_are_replaced() {
        for (text, expected) in [
            ("from 8.8.8.8.", "from 192.0.2.1."),
            ("http://93.184.216.34:80/", "http://192.0.2.1:80/"),
            ("9.255.255.255 11.0.0.0 172.15.0.1 172.32.0.1", "192.0.2.1 192.0.2.1 192.0.2.1 192.0.2.1"),
            ("223.255.255.255 100.63.0.1 100.128.0.1", "192.0.2.1 192.0.2.1 192.0.2.1"),
        ] {
            assert_eq!(replaced(text), expected);
        }
        for text in [
            "10.0.0.1 172.16.0.1 172.31.9.9 192.168.1.1 127.0.0.1 169.254.1.1 100.64.0.1 198.18.0.1 224.0.0.1",
            "0.1.2.3 255.255.255.255 203.0.113.9 192.0.0.1",
            "8.8.8 8.8.8.8.8 8.8.8.256 08.8.8.8 v8.8.8.8 8.8.8.8a 8.8.8.8-1 8..8.8.8 8.8.8.8.. 3.14",
        ] {
            assert_eq!(replaced(text), text);
        }
    }

    #[test]
    fn each_kind_can_be_left_alone() {
        let text = "a@b.com 8.8.8.8";
        assert_eq!(outcome(&Pii { emails: false, ipv4: true }, text), Ok("a@b.com 192.0.2.1".into()));
        assert_eq!(outcome(&Pii { emails: true, ipv4: false }, text), Ok("email@example.com 8.8.8.8".into()));
        assert!(Pii { emails: false, ipv4: false }.check().is_err());
    }

    proptest! {
        #[test]
        fn replacing_again_changes_nothing(text in "([a-c1-9]|@|\\.|-|/|'| |é|8\\.8\\.8\\.8|b\\.com){0,40}") {
            let once = replaced(&text);
            prop_assert_eq!(replaced(&once), once);
        }
    }
}
