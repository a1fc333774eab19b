//! Deserializer of TOML values whose errors are data: the path, the refused value, and the names the type knows.

use std::fmt::Display;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeInteger, DeValue};

/// Segment of a path to a value: a key of a table, or an index of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathSegment {
    Key(String),
    Index(usize),
}

/// Refusal of a value by its type. In a table with a tag only the table's path is known.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) key_path: Vec<PathSegment>,
    pub(super) reason: Reason,
}

/// Reason of a refusal.
#[derive(Debug)]
pub(super) enum Reason {
    /// The type has no such key or variant.
    Unknown {
        /// "key" or "value".
        what: &'static str,
        name: String,
        known: &'static [&'static str],
    },
    /// The type takes values of another type, or of another range.
    Unfit { found: Found, problem: String },
    /// Any other reason, as a message.
    Other(String),
}

/// Refused value.
#[derive(Debug)]
pub(super) enum Found {
    Text(String),
    Integer(i128),
    Float,
    Bool(bool),
    List,
    Table,
    Other,
}

impl Found {
    fn of(unexpected: Unexpected<'_>) -> Self {
        match unexpected {
            Unexpected::Str(text) => Self::Text(text.to_owned()),
            Unexpected::Signed(number) => Self::Integer(number.into()),
            Unexpected::Unsigned(number) => Self::Integer(number.into()),
            Unexpected::Float(_) => Self::Float,
            Unexpected::Bool(value) => Self::Bool(value),
            Unexpected::Seq => Self::List,
            Unexpected::Map => Self::Table,
            _ => Self::Other,
        }
    }

    /// Whether `value` would be reported as this refused value.
    pub(super) fn is_like(&self, value: &DeValue<'_>) -> bool {
        match (self, value) {
            (Self::Text(text), DeValue::String(found)) => text == found,
            (Self::Integer(number), DeValue::Integer(found)) => integer(found) == Some(*number),
            (Self::Bool(value), DeValue::Boolean(found)) => value == found,
            (Self::Float, DeValue::Float(_))
            | (Self::List, DeValue::Array(_))
            | (Self::Table, DeValue::Table(_))
            | (Self::Other, DeValue::Datetime(_)) => true,
            _ => false,
        }
    }
}

fn integer(number: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

impl Refusal {
    fn new(reason: Reason) -> Self {
        Self { key_path: Vec::new(), reason }
    }

    /// The refusal with `key_path`, unless it has a path already.
    fn at(self, key_path: &[PathSegment]) -> Self {
        if self.key_path.is_empty() { Self { key_path: key_path.to_vec(), ..self } } else { self }
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reason {
            Reason::Unknown { what, name, .. } => write!(f, "unknown {what} `{name}`"),
            Reason::Unfit { problem, .. } | Reason::Other(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for Refusal {}

impl Error for Refusal {
    fn custom<T: Display>(problem: T) -> Self {
        Self::new(Reason::Other(problem.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let problem = format!("invalid type: {found}, expected {expected}");
        Self::new(Reason::Unfit { found: Found::of(found), problem })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let problem = format!("invalid value: {found}, expected {expected}");
        Self::new(Reason::Unfit { found: Found::of(found), problem })
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(Reason::Unknown { what: "key", name: name.to_owned(), known })
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(Reason::Unknown { what: "value", name: name.to_owned(), known })
    }
}

/// Deserializer of one value, with the value's path.
#[derive(Debug, Clone)]
pub(super) struct Reader<'v> {
    value: &'v Spanned<DeValue<'v>>,
    key_path: Vec<PathSegment>,
    /// Path of the value that is left out.
    hidden: Option<&'v [PathSegment]>,
}

impl<'v> Reader<'v> {
    /// Deserializer of a whole file.
    pub(super) fn new(whole: &'v Spanned<DeValue<'v>>) -> Self {
        Self { value: whole, key_path: Vec::new(), hidden: None }
    }

    /// Deserializer of a whole file without the value at `hidden`.
    pub(super) fn without(whole: &'v Spanned<DeValue<'v>>, hidden: &'v [PathSegment]) -> Self {
        Self { value: whole, key_path: Vec::new(), hidden: Some(hidden) }
    }

    /// Deserializer of a child value; `None` for the value that is left out.
    fn child(&self, segment: PathSegment, value: &'v Spanned<DeValue<'v>>) -> Option<Self> {
        let mut key_path = self.key_path.clone();
        key_path.push(segment);
        (self.hidden != Some(&key_path[..])).then_some(Self { value, key_path, hidden: self.hidden })
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let given = match self.value.get_ref() {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Integer(number) => visit_integer(number, visitor),
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) => visitor.visit_f64(number),
                Err(error) => Err(Refusal::custom(error)),
            },
            DeValue::Boolean(value) => visitor.visit_bool(*value),
            DeValue::Datetime(_) => Err(Refusal::invalid_type(Unexpected::Other("date or time"), &visitor)),
            DeValue::Array(items) => {
                let items = items.iter().enumerate();
                let items = items.filter_map(|(index, item)| self.child(PathSegment::Index(index), item));
                visitor.visit_seq(Items(items))
            }
            DeValue::Table(table) => {
                let entries = table.iter().map(|(key, value)| (key.get_ref().to_string(), value));
                let entries = entries.filter_map(|(key, value)| {
                    self.child(PathSegment::Key(key.clone()), value).map(|v| (key, v))
                });
                visitor.visit_map(Entries { entries, value: None })
            }
        };
        given.map_err(|refusal| refusal.at(&self.key_path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let key_path = self.key_path.clone();
        let given = match self.value.get_ref() {
            DeValue::String(text) => visitor.visit_enum(StrDeserializer::new(text)),
            DeValue::Table(table) if table.len() == 1 => visitor.visit_enum(self),
            _ => Err(Refusal::custom("wanted string or table")),
        };
        given.map_err(|refusal| refusal.at(&key_path))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// Passes an integer of TOML's range, 64 bits with sign.
fn visit_integer<'de, V: Visitor<'de>>(number: &DeInteger<'_>, visitor: V) -> Result<V::Value, Refusal> {
    match i64::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) => visitor.visit_i64(number),
        Err(_) => Err(Refusal::custom(format_args!("integer {number} is beyond the 64 signed bits of TOML"))),
    }
}

/// Table of one key, which names a variant.
impl<'de, 'v> EnumAccess<'de> for Reader<'v> {
    type Error = Refusal;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Refusal> {
        let DeValue::Table(table) = self.value.get_ref() else {
            return Err(Refusal::custom("wanted string or table"));
        };
        let entry = table.iter().next().and_then(|(key, value)| {
            let key = key.get_ref().to_string();
            Some((self.child(PathSegment::Key(key.clone()), value)?, key))
        });
        let (value, key) = entry.ok_or_else(|| Refusal::custom("wanted string or table"))?;
        Ok((seed.deserialize(key.into_deserializer())?, value))
    }
}

impl<'de> VariantAccess<'de> for Reader<'_> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        Err(Refusal::custom("wanted a string").at(&self.key_path))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refusal> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_any(visitor)
    }
}

/// Items of a list.
struct Items<I>(I);

impl<'de, 'v, I: Iterator<Item = Reader<'v>>> SeqAccess<'de> for Items<I> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        self.0.next().map(|item| seed.deserialize(item)).transpose()
    }
}

/// Keys and values of a table.
struct Entries<'v, I> {
    entries: I,
    value: Option<Reader<'v>>,
}

impl<'de, 'v, I: Iterator<Item = (String, Reader<'v>)>> MapAccess<'de> for Entries<'v, I> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let value = self.value.take().expect("a value follows its key");
        seed.deserialize(value)
    }
}
