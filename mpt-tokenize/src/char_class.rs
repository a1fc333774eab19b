//! Character classes of GPT-2's pattern, as a table over all code points.

use std::sync::LazyLock;

use regex_syntax::hir::{Class as Ranges, HirKind};

/// Character class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CharClass {
    /// `[^\s\p{L}\p{N}]`
    Other,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
}

static TABLE: LazyLock<Box<[CharClass]>> = LazyLock::new(|| {
    let mut table = vec![CharClass::Other; char::MAX as usize + 1].into_boxed_slice();
    for (pattern, class) in
        [(r"\p{L}", CharClass::Letter), (r"\p{N}", CharClass::Number), (r"\s", CharClass::Space)]
    {
        let parsed = regex_syntax::parse(pattern).expect("the pattern is valid");
        let HirKind::Class(Ranges::Unicode(ranges)) = parsed.kind() else {
            unreachable!("the pattern is a class")
        };
        for range in ranges.ranges() {
            table[range.start() as usize..=range.end() as usize].fill(class);
        }
    }
    table
});

/// Classes by code point.
pub(crate) fn table() -> &'static [CharClass] {
    &TABLE
}
