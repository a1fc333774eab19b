//! Parser of a source file's module structure: paths, imports and declared modules.
//!
//! It works on tokens, so comments, doc comments and strings are ignored, and macros are read like other code. Items
//! under `#[cfg(test)]` are skipped.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Module, as its path from the crate root, which is empty.
pub(super) type Module = Vec<String>;

/// Module structure of a file.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Module of the file, and modules declared inline.
    pub(super) modules: Vec<Module>,
    /// Modules under `#[cfg(test)]`.
    pub(super) test_modules: Vec<Module>,
    /// Paths that begin with `crate`, `self` or `super`.
    pub(super) mentions: Vec<Mention>,
    /// Imported names.
    pub(super) imports: Vec<Import>,
}

/// Path that begins with `crate`, `self` or `super`.
#[derive(Debug)]
pub(super) struct Mention {
    /// Module that contains it.
    pub(super) module: Module,
    /// Segments, the first of which is `crate`, `self` or `super`.
    pub(super) path: Vec<String>,
    /// Line, from 1.
    pub(super) line: usize,
}

/// Imported name.
#[derive(Debug)]
pub(super) struct Import {
    /// Module that contains it.
    pub(super) module: Module,
    /// Name in scope.
    pub(super) name: String,
    /// Path it resolves to.
    pub(super) path: Vec<String>,
}

/// Leaf of a use tree such as `a::{b, c as d}`.
struct UseLeaf {
    path: Vec<String>,
    alias: Option<String>,
    line: usize,
}

impl Source {
    /// Parses the file of `module`.
    pub(super) fn read(text: &str, module: Module) -> Result<Self> {
        let tokens: TokenStream = text.parse().map_err(|error| anyhow!("is not Rust: {error}"))?;
        let mut source = Self::default();
        source.scan_module(tokens, module);
        Ok(source)
    }

    fn scan_module(&mut self, tokens: TokenStream, module: Module) {
        self.modules.push(module.clone());
        self.scan(tokens, &module);
    }

    fn scan(&mut self, tokens: TokenStream, module: &Module) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            let rest = &tokens[at..];
            if opens_tests(rest) {
                return;
            }
            at += if let Some(length) = test_item(rest) {
                self.test_modules.extend(declared(&rest[..length], module));
                length
            } else if let Some((inner, tokens)) = inline_module(rest, module) {
                self.scan_module(tokens, inner);
                3
            } else if is_ident(rest, 0, "use") {
                self.scan_use(rest, module)
            } else if starts_path(rest) {
                self.scan_path(rest, module)
            } else {
                if let TokenTree::Group(group) = &rest[0] {
                    self.scan(group.stream(), module);
                }
                1
            };
        }
    }

    /// Reads a `use` item. Returns its length in tokens.
    fn scan_use(&mut self, tokens: &[TokenTree], module: &Module) -> usize {
        let mut leaves = Vec::new();
        let length = 1 + tree(&tokens[1..], Vec::new(), &mut leaves);
        for leaf in leaves {
            let name = leaf.alias.clone().or_else(|| leaf.path.last().cloned());
            if let Some(name) = name {
                self.imports.push(Import { module: module.clone(), name, path: leaf.path.clone() });
            }
            self.mention(leaf, module);
        }
        length
    }

    /// Reads a path in code. Returns its length in tokens.
    fn scan_path(&mut self, tokens: &[TokenTree], module: &Module) -> usize {
        let mut leaves = Vec::new();
        let length = tree(tokens, Vec::new(), &mut leaves);
        leaves.into_iter().for_each(|leaf| self.mention(leaf, module));
        length
    }

    fn mention(&mut self, leaf: UseLeaf, module: &Module) {
        if leaf.path.first().is_some_and(|first| is_anchor(first)) {
            self.mentions.push(Mention { module: module.clone(), path: leaf.path, line: leaf.line });
        }
    }
}

fn is_anchor(ident: &str) -> bool {
    ["crate", "self", "super"].contains(&ident)
}

/// Whether the tokens begin a path of `crate`, `self` or `super`.
fn starts_path(tokens: &[TokenTree]) -> bool {
    ident_at(tokens, 0).is_some_and(|ident| is_anchor(&ident)) && is_separator(tokens, 1)
}

/// Collects the leaves of a use tree. Returns its length in tokens.
fn tree(tokens: &[TokenTree], mut path: Vec<String>, leaves: &mut Vec<UseLeaf>) -> usize {
    let mut at = 0;
    let mut line = 0;
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(ident)) => {
                line = ident.span().start().line;
                path.push(ident.to_string());
                at += 1;
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                inner.split(|token| is_punct(Some(token), ',')).for_each(|branch| {
                    tree(branch, path.clone(), leaves);
                });
                return at + 1;
            }
            _ => break,
        }
        if !is_separator(tokens, at) {
            break;
        }
        at += 2;
    }
    let alias = if is_ident(tokens, at, "as") { ident_at(tokens, at + 1) } else { None };
    at += if alias.is_some() { 2 } else { 0 };
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if line > 0 {
        leaves.push(UseLeaf { path, alias, line });
    }
    at
}

/// Whether the tokens begin with `#![cfg(test)]`, which makes the rest of the file a test.
fn opens_tests(tokens: &[TokenTree]) -> bool {
    is_punct(tokens.first(), '#') && is_punct(tokens.get(1), '!') && is_cfg_test(tokens.get(2))
}

/// Length in tokens of an item under `#[cfg(test)]`, attribute included.
fn test_item(tokens: &[TokenTree]) -> Option<usize> {
    if !is_punct(tokens.first(), '#') || !is_cfg_test(tokens.get(1)) {
        return None;
    }
    let is_use = item_idents(&tokens[2..]).any(|ident| ident == "use");
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace && !is_use,
        token => is_punct(Some(token), ';'),
    };
    let end = tokens.iter().position(ends);
    Some(end.map_or(tokens.len(), |end| end + 1))
}

/// Identifiers of an item up to its first brace, semicolon or path separator.
fn item_idents(tokens: &[TokenTree]) -> impl Iterator<Item = String> {
    let in_head = |token: &&TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() != Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == '#',
        _ => true,
    };
    tokens.iter().take_while(in_head).filter_map(|token| ident_at(std::slice::from_ref(token), 0))
}

fn is_cfg_test(attribute: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = attribute else { return false };
    let text: String = group.stream().to_string().split_whitespace().collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// Module that an item such as `mod name;` declares.
fn declared(item: &[TokenTree], module: &Module) -> Option<Module> {
    let at = (0..item.len()).find(|&at| is_ident(item, at, "mod"))?;
    Some(child(module, ident_at(item, at + 1)?))
}

/// Module and content of `mod name { … }`.
fn inline_module(tokens: &[TokenTree], module: &Module) -> Option<(Module, TokenStream)> {
    let name = is_ident(tokens, 0, "mod").then(|| ident_at(tokens, 1))??;
    let Some(TokenTree::Group(group)) = tokens.get(2) else { return None };
    Some((child(module, name), group.stream()))
}

fn child(module: &Module, name: String) -> Module {
    module.iter().cloned().chain([name]).collect()
}

fn ident_at(tokens: &[TokenTree], at: usize) -> Option<String> {
    let Some(TokenTree::Ident(ident)) = tokens.get(at) else { return None };
    Some(ident.to_string())
}

fn is_ident(tokens: &[TokenTree], at: usize, expected: &str) -> bool {
    ident_at(tokens, at).is_some_and(|ident| ident == expected)
}

fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

fn is_punct(token: Option<&TokenTree>, expected: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let source = Source::read(text, vec!["here".to_owned()]).expect("Rust");
        source
            .mentions
            .iter()
            .map(|mention| format!("{}:{}", mention.path.join("::"), mention.line))
            .collect()
    }

    #[test]
    fn paths_are_found_wherever_they_stand() {
        let text = "use crate::a::{self, B, c::{D as E, F}, *};\n\
                    fn f(x: crate::g::H) -> Vec<super::I> { vec![crate::j!(), self::k::<crate::L>()] }";
        let found = paths(text);
        assert_eq!(
            found,
            [
                "crate::a:1",
                "crate::a::B:1",
                "crate::a::c::D:1",
                "crate::a::c::F:1",
                "crate::g::H:2",
                "super::I:2",
                "crate::j:2",
                "self::k:2",
                "crate::L:2"
            ]
        );
    }

    #[test]
    fn comments_strings_and_visibility_say_nothing() {
        let text =
            "//! [`crate::a::B`]\n/// See crate::c.\npub(crate) const X: &str = \"crate::d::E\"; // crate::f";
        assert_eq!(paths(text), [""; 0]);
    }

    #[test]
    fn tests_are_left_out() {
        let text = "#[cfg(test)]\nmod tests { use crate::a; }\n#[cfg(test)]\nuse crate::b::{C, D};\n\
                    #[cfg(all(test, unix))] fn f() { crate::e() }\nuse crate::g;\n#[cfg(test)] mod only;";
        assert_eq!(paths(text), ["crate::g:6"]);
        let source = Source::read(text, Module::new()).expect("Rust");
        assert_eq!(source.test_modules, [["tests"], ["only"]]);
        assert_eq!(paths("#![cfg(test)]\nuse crate::a;"), [""; 0]);
    }

    #[test]
    fn modules_in_a_file_are_modules() {
        let source = Source::read("pub mod a { mod b { use super::super::C; } }", Module::new());
        let source = source.expect("Rust");
        assert_eq!(source.modules.last().expect("three").join("::"), "a::b");
        assert_eq!(source.mentions[0].module.join("::"), "a::b");
    }
}
