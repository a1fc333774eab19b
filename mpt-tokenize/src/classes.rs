//! Which kind of word a character belongs to.

use std::sync::LazyLock;

use regex_syntax::hir::{Class as Ranges, HirKind};

/// The classes that the pattern of GPT-2 tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// None of the others, `[^\s\p{L}\p{N}]`.
    Other,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
}

static TABLE: LazyLock<Box<[Class]>> = LazyLock::new(|| {
    let mut table = vec![Class::Other; char::MAX as usize + 1].into_boxed_slice();
    for (pattern, class) in [(r"\p{L}", Class::Letter), (r"\p{N}", Class::Number), (r"\s", Class::Space)] {
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

/// All classes, by code point.
pub(crate) fn table() -> &'static [Class] {
    &TABLE
}
