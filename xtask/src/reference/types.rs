//! Types of run files, parsed from their source: fields, documentation, serde attributes and defaults.
//!
//! It supports structs with named fields, enums of plain variants and tagged enums. Other items are skipped.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Types of some source files.
#[derive(Debug, Default)]
pub(super) struct TypeTable {
    /// Types by Rust name.
    pub(super) by_name: BTreeMap<String, Type>,
    /// Values of constants as TOML.
    constants: BTreeMap<String, String>,
}

/// Struct or enum.
#[derive(Debug, Default)]
pub(super) struct Type {
    /// Documentation, a line per paragraph.
    pub(super) doc: String,
    /// Serde attributes.
    pub(super) serde: SerdeAttributes,
    /// Fields or variants.
    pub(super) body: Body,
    /// Field defaults by name, from an explicit `Default`.
    defaults: BTreeMap<String, TokenStream>,
    /// Bodies of the file's functions by name.
    functions: BTreeMap<String, TokenStream>,
}

/// Fields or variants of a type.
#[derive(Debug)]
pub(super) enum Body {
    /// Named fields.
    Struct(Vec<Field>),
    /// Variants.
    Enum(Vec<Variant>),
}

/// Key of a table.
#[derive(Debug)]
pub(super) struct Field {
    /// Key.
    pub(super) name: String,
    /// Documentation.
    pub(super) doc: String,
    /// Type as Rust tokens without spaces.
    pub(super) ty: String,
    /// Serde attributes.
    pub(super) serde: SerdeAttributes,
}

/// Variant of an enum.
#[derive(Debug)]
pub(super) struct Variant {
    /// Rust name.
    pub(super) name: String,
    /// Documentation.
    pub(super) doc: String,
    /// Keys beside the tag.
    pub(super) fields: Vec<Field>,
    /// Type with the keys, for a newtype variant.
    pub(super) newtype_of: Option<String>,
    is_default: bool,
    rename: Option<String>,
}

/// Serde attributes: `a` or `a = "b"`.
#[derive(Debug, Default, Clone)]
pub(super) struct SerdeAttributes(Vec<(String, Option<String>)>);

/// Default of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DefaultValue {
    /// The key is required.
    Required,
    /// No value, or one that the documentation describes.
    Absent,
    /// Value as TOML.
    Value(String),
}

impl Default for Body {
    fn default() -> Self {
        Self::Struct(Vec::new())
    }
}

impl SerdeAttributes {
    /// Whether an attribute is present.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// Text of an attribute `name = "text"`.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name)?.1.as_deref()
    }
}

impl TypeTable {
    /// Adds the types of a source file.
    pub(super) fn read(&mut self, text: &str) -> Result<()> {
        let tokens: TokenStream = text.parse().map_err(|error| anyhow!("is not Rust: {error}"))?;
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut file = ParsedFile::default();
        file.scan(&tokens);
        for (name, mut ty) in file.types {
            ty.defaults = file.defaults.remove(&name).unwrap_or_default();
            ty.functions = file.functions.clone();
            self.by_name.entry(name).or_insert(ty);
        }
        for (name, tokens) in file.constants {
            let value = self.toml_value(tokens);
            self.constants.entry(name).or_insert(value);
        }
        Ok(())
    }

    /// Default of `field` of `of`.
    pub(super) fn default_of(&self, of: &Type, field: &Field) -> DefaultValue {
        if let Some(function) = field.serde.text("default") {
            let tokens = of.functions.get(function).cloned();
            let value =
                tokens.map_or_else(|| self.path_toml_value(function), |tokens| self.toml_value(tokens));
            return DefaultValue::Value(value);
        }
        if let Some(tokens) = of.defaults.get(&field.name).filter(|_| of.serde.has("default")) {
            return match self.toml_value(tokens.clone()) {
                value if value == "None" => DefaultValue::Absent,
                value => DefaultValue::Value(value),
            };
        }
        if field.ty.starts_with("Option<") {
            return DefaultValue::Absent;
        }
        if !field.serde.has("default") && !of.serde.has("default") {
            return DefaultValue::Required;
        }
        self.default_of_type(&field.ty).map_or(DefaultValue::Absent, DefaultValue::Value)
    }

    /// Value of a type's own `Default`, as TOML.
    fn default_of_type(&self, ty: &str) -> Option<String> {
        match ty {
            "bool" => return Some("false".to_owned()),
            "String" => return Some("\"\"".to_owned()),
            "f64" | "u64" | "usize" | "u32" => return Some("0".to_owned()),
            list if list.starts_with("Vec<") => return Some("[]".to_owned()),
            _ => {}
        }
        let ty = self.by_name.get(ty)?;
        let Body::Enum(variants) = &ty.body else { return None };
        let variant = variants.iter().find(|variant| variant.is_default)?;
        Some(format!("\"{}\"", ty.value_name(variant)))
    }

    /// TOML of a default's expression.
    fn toml_value(&self, tokens: TokenStream) -> String {
        let tokens: Vec<_> = tokens.into_iter().collect();
        match tokens.first() {
            Some(TokenTree::Literal(literal)) => literal.to_string(),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => {
                let items = split_at_commas(group.stream()).into_iter().map(|item| self.toml_value(item));
                format!("[{}]", items.collect::<Vec<_>>().join(", "))
            }
            Some(TokenTree::Ident(_)) => {
                let path = tokens.iter().take_while(|token| !matches!(token, TokenTree::Group(_)));
                let path: String = path.map(ToString::to_string).collect();
                self.path_toml_value(path.split('.').next().unwrap_or_default())
            }
            _ => String::new(),
        }
    }

    /// TOML of a path: a constant's value, a variant's name, or the last segment in quotes.
    fn path_toml_value(&self, path: &str) -> String {
        if let Some(value) = self.constants.get(path) {
            return value.clone();
        }
        let Some((ty, name)) = path.rsplit_once("::") else { return path.to_owned() };
        let ty = self.by_name.get(ty);
        let variants = ty.and_then(|ty| if let Body::Enum(all) = &ty.body { Some((ty, all)) } else { None });
        let variant = variants.and_then(|(ty, all)| Some((ty, all.iter().find(|v| v.name == name)?)));
        let name = variant.map_or_else(|| name.to_owned(), |(ty, variant)| ty.value_name(variant));
        format!("\"{name}\"")
    }

    /// Value of a constant as TOML.
    pub(super) fn constant(&self, name: &str) -> Option<&str> {
        self.constants.get(name).map(String::as_str)
    }
}

impl Type {
    /// Name of a variant in a run file.
    pub(super) fn value_name(&self, variant: &Variant) -> String {
        let name = &variant.name;
        if let Some(name) = &variant.rename {
            return name.clone();
        }
        match self.serde.text("rename_all") {
            Some("lowercase") => name.to_lowercase(),
            Some("snake_case") => snake_case(name),
            _ => name.clone(),
        }
    }
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for (at, letter) in name.chars().enumerate() {
        if at > 0 && letter.is_uppercase() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// Items of a file.
#[derive(Debug, Default)]
struct ParsedFile {
    types: Vec<(String, Type)>,
    defaults: BTreeMap<String, BTreeMap<String, TokenStream>>,
    functions: BTreeMap<String, TokenStream>,
    constants: Vec<(String, TokenStream)>,
}

impl ParsedFile {
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

/// Splits tokens at commas outside of brackets, including `<` and `>`.
fn split_at_commas(tokens: TokenStream) -> Vec<TokenStream> {
    let (mut items, mut depth) = (vec![Vec::new()], 0_i32);
    for token in tokens {
        match &token {
            TokenTree::Punct(punct) if punct.as_char() == ',' && depth == 0 => {
                items.push(Vec::new());
                continue;
            }
            TokenTree::Punct(punct) if punct.as_char() == '<' => depth += 1,
            TokenTree::Punct(punct) if punct.as_char() == '>' => depth -= 1,
            _ => {}
        }
        items.last_mut().expect("there is a part").push(token);
    }
    items.into_iter().filter(|item| !item.is_empty()).map(|item| item.into_iter().collect()).collect()
}

/// Length of `pub` or `pub(super)` in tokens.
fn visibility_length(tokens: &[TokenTree]) -> usize {
    match (ident_at(tokens, 0).as_deref(), tokens.get(1)) {
        (Some("pub"), Some(TokenTree::Group(group))) if group.delimiter() == Delimiter::Parenthesis => 2,
        (Some("pub"), _) => 1,
        _ => 0,
    }
}

/// Length of an item in tokens, up to a semicolon or a group in braces.
fn item_length(tokens: &[TokenTree]) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    tokens.iter().position(ends).map_or(tokens.len(), |at| at + 1)
}

/// First group in braces of an item.
fn brace_group(tokens: &[TokenTree]) -> Option<Group> {
    tokens[..item_length(tokens)].iter().find_map(|token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group.clone()),
        _ => None,
    })
}

/// Tokens after the `=` of a constant.
fn constant_value(tokens: &[TokenTree]) -> TokenStream {
    let item = &tokens[..item_length(tokens)];
    let is_equals = |token: &&TokenTree| !matches!(token, TokenTree::Punct(punct) if punct.as_char() == '=');
    let value = item.iter().skip_while(is_equals).skip(1);
    value
        .filter(|token| !matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';'))
        .cloned()
        .collect()
}

fn ident_at(tokens: &[TokenTree], at: usize) -> Option<String> {
    match tokens.get(at)? {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        _ => None,
    }
}

/// Text of a string literal.
fn unquote(literal: &str) -> String {
    let inner = literal.trim_start_matches('r').trim_matches('#');
    let inner = inner.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(inner);
    if literal.starts_with('r') {
        return inner.to_owned();
    }
    inner.replace("\\\"", "\"").replace("\\'", "'").replace("\\\\", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
const LEAST: u64 = 3;
/// A run.
///
/// More of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// How many.
    #[serde(default = "count")]
    pub count: usize,
    /// A "name".
    pub name: Option<String>,
    /// Where.
    path: Vec<BTreeMap<String, f64>>,
    #[serde(default)]
    mode: Mode,
}
#[serde(rename_all = "snake_case")]
enum Mode { #[default] TwoWords, Other }
#[serde(tag = "kind", rename_all = "lowercase")]
enum Part { Round { radius: f64 }, Square(Square) }
#[serde(default)]
struct Square { side: u64, marks: Vec<String>, mode: Mode, list: Option<String> }
impl Default for Square {
    fn default() -> Self {
        Self { side: LEAST, marks: ["a", "b"].map(str::to_owned).to_vec(), mode: Mode::Other, list: None }
    }
}
fn count() -> usize { 100_000 }
"#;

    fn types() -> TypeTable {
        let mut types = TypeTable::default();
        types.read(SOURCE).expect("it is Rust");
        types
    }

    fn defaults(types: &TypeTable, name: &str) -> Vec<DefaultValue> {
        let ty = &types.by_name[name];
        let Body::Struct(fields) = &ty.body else { panic!("{name} is a struct") };
        fields.iter().map(|field| types.default_of(ty, field)).collect()
    }

    #[test]
    fn fields_have_documentation_and_types() {
        let types = types();
        let run = &types.by_name["Run"];
        assert_eq!(run.doc, "A run. \nMore of it.");
        let Body::Struct(fields) = &run.body else { panic!("a struct") };
        let read: Vec<_> = fields.iter().map(|f| (f.name.as_str(), f.doc.as_str(), f.ty.as_str())).collect();
        assert_eq!(read[0], ("count", "How many.", "usize"));
        assert_eq!(read[1], ("name", "A \"name\".", "Option<String>"));
        assert_eq!(read[2].2, "Vec<BTreeMap<String,f64>>");
    }

    #[test]
    fn defaults_are_those_of_serde() {
        use DefaultValue::{Absent, Required, Value};
        let value = |text: &str| Value(text.to_owned());
        let types = types();
        assert_eq!(defaults(&types, "Run"), [value("100_000"), Absent, Required, value("\"two_words\"")]);
        let square = [value("3"), value("[\"a\", \"b\"]"), value("\"other\""), Absent];
        assert_eq!(defaults(&types, "Square"), square);
    }

    #[test]
    fn variants_have_the_names_of_the_file() {
        let types = types();
        let item = &types.by_name["Part"];
        let Body::Enum(variants) = &item.body else { panic!("an enum") };
        assert_eq!(item.serde.text("tag"), Some("kind"));
        assert_eq!((item.value_name(&variants[0]), variants[0].fields.len()), ("round".to_owned(), 1));
        assert_eq!(variants[1].newtype_of.as_deref(), Some("Square"));
    }
}
