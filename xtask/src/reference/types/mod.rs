//! Types of run files, parsed from their source: fields, documentation, serde attributes and defaults.
//!
//! It supports structs with named fields, enums of plain variants and tagged enums. Other items are skipped.

mod parse;
mod tokens;

use std::collections::BTreeMap;

use anyhow::Result;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use self::parse::ParsedFile;
use self::tokens::split_at_commas;

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
        let mut file = ParsedFile::parse(text)?;
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
