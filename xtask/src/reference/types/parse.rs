//! Parser of the items of a source file that matter to reference pages: types, defaults, functions, constants.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::tokens::{
    brace_group, constant_value, ident_at, item_length, split_at_commas, unquote, visibility_length,
};
use super::{Body, Field, SerdeAttributes, Type, Variant};

/// Items of a file.
#[derive(Debug, Default)]
pub(super) struct ParsedFile {
    /// Types by name, in order.
    pub(super) types: Vec<(String, Type)>,
    /// Field defaults of each explicit `Default`, by type and field.
    pub(super) defaults: BTreeMap<String, BTreeMap<String, TokenStream>>,
    /// Bodies of functions by name.
    pub(super) functions: BTreeMap<String, TokenStream>,
    /// Values of constants by name, in order.
    pub(super) constants: Vec<(String, TokenStream)>,
}

impl ParsedFile {
    /// Parses the source text of a file.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let tokens: TokenStream = text.parse().map_err(|error| anyhow!("is not Rust: {error}"))?;
        let mut file = Self::default();
        file.scan(&tokens.into_iter().collect::<Vec<_>>());
        Ok(file)
    }

    fn scan(&mut self, tokens: &[TokenTree]) {
        let mut at = 0;
        while at < tokens.len() {
            let (attributes, length) = Attributes::read(&tokens[at..]);
            at += length + visibility_length(&tokens[at + length..]);
            let rest = &tokens[at..];
            match (ident_at(rest, 0).as_deref(), ident_at(rest, 1)) {
                (Some("struct" | "enum"), Some(name)) => self.read_type(name, attributes, rest),
                (Some("fn"), Some(name)) => {
                    self.functions.extend(brace_group(rest).map(|group| (name, group.stream())))
                }
                (Some("const"), Some(name)) => self.constants.push((name, constant_value(rest))),
                (Some("impl"), _) => self.read_default_impl(rest),
                _ => {}
            }
            at += item_length(rest);
        }
    }

    fn read_type(&mut self, name: String, attributes: Attributes, tokens: &[TokenTree]) {
        let Some(group) = brace_group(tokens) else { return };
        let body = match ident_at(tokens, 0).as_deref() {
            Some("struct") => Body::Struct(fields(group.stream())),
            _ => Body::Enum(split_at_commas(group.stream()).into_iter().filter_map(variant).collect()),
        };
        let Attributes { doc, serde, .. } = attributes;
        self.types.push((name, Type { doc, serde, body, ..Type::default() }));
    }

    /// Reads the field defaults of an `impl Default for X`.
    fn read_default_impl(&mut self, tokens: &[TokenTree]) {
        let words = [ident_at(tokens, 1), ident_at(tokens, 2)].map(Option::unwrap_or_default);
        let (["Default", "for"], Some(name)) = (words.each_ref().map(String::as_str), ident_at(tokens, 3))
        else {
            return;
        };
        let inner: Vec<_> = brace_group(tokens).into_iter().flat_map(|group| group.stream()).collect();
        let inner: Vec<_> = brace_group(&inner).into_iter().flat_map(|group| group.stream()).collect();
        let Some(set) = brace_group(&inner) else { return };
        let set = split_at_commas(set.stream()).into_iter().filter_map(|tokens| {
            let tokens: Vec<_> = tokens.into_iter().collect();
            Some((ident_at(&tokens, 0)?, tokens.get(2..)?.iter().cloned().collect()))
        });
        self.defaults.insert(name, set.collect());
    }
}

/// Attributes of an item.
#[derive(Debug, Default)]
struct Attributes {
    doc: String,
    serde: SerdeAttributes,
    is_default: bool,
}

impl Attributes {
    /// Reads the attributes at the beginning of `tokens`. Returns them with their length in tokens.
    fn read(tokens: &[TokenTree]) -> (Self, usize) {
        let (mut read, mut at) = (Self::default(), 0);
        while let [TokenTree::Punct(hash), rest @ ..] = &tokens[at..]
            && hash.as_char() == '#'
        {
            let inner = usize::from(matches!(rest.first(), Some(TokenTree::Punct(_))));
            if let Some(TokenTree::Group(group)) = rest.get(inner) {
                read.add(&group.stream().into_iter().collect::<Vec<_>>());
            }
            at += 2 + inner;
        }
        read.doc = read.doc.trim().to_owned();
        (read, at)
    }

    fn add(&mut self, tokens: &[TokenTree]) {
        match (ident_at(tokens, 0).as_deref(), tokens.get(1), tokens.get(2)) {
            (Some("doc"), _, Some(TokenTree::Literal(text))) => {
                let text = unquote(&text.to_string());
                self.doc.push_str(text.trim());
                self.doc.push(if text.trim().is_empty() { '\n' } else { ' ' });
            }
            (Some("default"), None, _) => self.is_default = true,
            (Some("serde"), Some(TokenTree::Group(group)), _) => {
                self.serde.0.extend(split_at_commas(group.stream()).into_iter().filter_map(serde_item));
            }
            _ => {}
        }
    }
}

fn serde_item(tokens: TokenStream) -> Option<(String, Option<String>)> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let text = tokens.get(2).map(|token| unquote(&token.to_string()));
    Some((ident_at(&tokens, 0)?, text))
}

fn fields(tokens: TokenStream) -> Vec<Field> {
    split_at_commas(tokens).into_iter().filter_map(field).collect()
}

fn field(tokens: TokenStream) -> Option<Field> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let (Attributes { doc, serde, .. }, length) = Attributes::read(&tokens);
    let rest = &tokens[length + visibility_length(&tokens[length..])..];
    let name = ident_at(rest, 0)?.trim_start_matches("r#").to_owned();
    let ty = rest.get(2..)?.iter().map(ToString::to_string).collect::<String>().replace(' ', "");
    Some(Field { name, doc, ty, serde })
}

fn variant(tokens: TokenStream) -> Option<Variant> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let (Attributes { doc, serde, is_default }, length) = Attributes::read(&tokens);
    let rest = &tokens[length..];
    let (mut keys, mut newtype_of) = (Vec::new(), None);
    if let Some(TokenTree::Group(group)) = rest.get(1) {
        match group.delimiter() {
            Delimiter::Brace => keys = fields(group.stream()),
            _ => newtype_of = Some(group.stream().to_string()),
        }
    }
    let rename = serde.text("rename").map(str::to_owned);
    Some(Variant { name: ident_at(rest, 0)?, doc, fields: keys, newtype_of, is_default, rename })
}
