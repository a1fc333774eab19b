//! `cargo xtask reference`: reference pages of RUN.toml and MIX.toml, generated from the types that parse them.
//!
//! A page walks down from the type of the whole file and has a table of keys per type, in the order of the fields.
//! `tidy` fails if a page is not up to date.

mod types;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::Shell;

use self::types::{Body, DefaultValue, Field, Type, TypeTable};
use crate::print_status;

/// Reference page and its sources.
struct Page {
    /// Path of the page.
    path: &'static str,
    /// Name of the file it describes.
    title: &'static str,
    /// Introduction before the first table.
    intro: &'static str,
    /// Type of the whole file.
    root: &'static str,
    /// Source files, and folders of them. If two define a type of one name, the first is used.
    sources: &'static [&'static str],
}

const PAGES: [Page; 2] = [
    Page {
        path: "docs/reference/run-toml.md",
        title: "RUN.toml",
        intro: "The file of `mpt train`. [Training](../training.md) says how the keys work together. Paths are relative to the file's \
                folder. `mpt train run.toml --print-config` prints the file with every default.",
        root: "RawRun",
        sources: &[
            "mpt-train/src/run/mod.rs",
            "mpt-train/src/config.rs",
            "mpt-data/src/mixing.rs",
            "mpt-core/src/dtype.rs",
            "mpt-core/src/config/read",
        ],
    },
    Page {
        path: "docs/reference/mix-toml.md",
        title: "MIX.toml",
        intro: "The file of `mpt data build`. [Loading data](../data-loading.md), [filters](../data-filters.md) and \
                [copies](../data-dedup.md) say how the keys work together. Paths are relative to the file's folder.",
        root: "RawRun",
        sources: &[
            "mpt-data/src/config",
            "mpt-data/src/mixing.rs",
            "mpt-data/src/dedup/config.rs",
            "mpt-data/src/filter",
        ],
    },
];

/// Types with a hand-written parser: the text for their value, and the type with their keys.
const HAND_WRITTEN: [(&str, &str, Option<&str>); 3] = [
    ("MptConfig", "table", Some("RawMptConfig")),
    ("Dedup", "`\"none\"`, the name of a stage, a table of one, or a list of them", Some("DedupStage")),
    ("DedupKinds", "true, false, or a list of names of stages", None),
];

pub(crate) fn run(sh: &Shell) -> Result<()> {
    for page in &PAGES {
        sh.write_file(page.path, page.text(sh)?)?;
        print_status(page.path);
    }
    Ok(())
}

/// Messages for pages that are not up to date.
pub(crate) fn stale_pages(sh: &Shell) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for page in &PAGES {
        if sh.read_file(page.path).unwrap_or_default() != page.text(sh)? {
            problems.push(format!("{} is not what the types say: run `cargo xtask reference`", page.path));
        }
    }
    Ok(problems)
}

impl Page {
    fn text(&self, sh: &Shell) -> Result<String> {
        let mut types = TypeTable::default();
        for path in self.files(sh)? {
            let text = sh.read_file(&path)?;
            types.read(&text).with_context(|| path.display().to_string())?;
        }
        let mut writer = Writer { types: &types, out: String::new() };
        let (title, intro) = (self.title, self.intro);
        writeln!(writer.out, "# Keys of {title}\n\n<!-- Written by `cargo xtask reference`. -->\n\n{intro}")?;
        writer.table(self.root, "", "Top of the file")?;
        Ok(writer.out)
    }

    fn files(&self, sh: &Shell) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for source in self.sources.iter().map(Path::new) {
            match source.extension() {
                Some(_) => files.push(source.to_owned()),
                None => files.extend(sh.read_dir(source)?),
            }
        }
        Ok(files)
    }
}

/// Page under construction.
struct Writer<'a> {
    types: &'a TypeTable,
    out: String,
}

impl Writer<'_> {
    /// Writes the keys of a type at `key_path`, then those of the tables in it.
    fn table(&mut self, name: &str, key_path: &str, title: &str) -> Result<()> {
        let ty =
            self.types.by_name.get(name).with_context(|| format!("no type `{name}` is in the sources"))?;
        match &ty.body {
            Body::Struct(fields) => {
                let doc = if key_path.is_empty() { String::new() } else { self.plain_text(&ty.doc) };
                self.key_table(ty, fields, &format!("## {title}"), &doc)?;
                self.nested_tables(fields, key_path)
            }
            Body::Enum(_) => self.variant_tables(ty, key_path, title),
        }
    }

    fn nested_tables(&mut self, fields: &[Field], key_path: &str) -> Result<()> {
        for field in fields.iter().filter(|field| !field.serde.has("flatten")) {
            let (inner, is_list) = element_type(&field.ty);
            let inner = hand_written(inner).map_or(inner, |(_, keys)| keys.unwrap_or(inner));
            let Some(ty) = self.types.by_name.get(inner) else { continue };
            if is_name_enum(ty) {
                continue;
            }
            let dot = if key_path.is_empty() { "" } else { "." };
            let key_path = format!("{key_path}{dot}{}", field.name);
            let title = if is_list { format!("`[[{key_path}]]`") } else { format!("`[{key_path}]`") };
            self.table(inner, &key_path, &title)?;
        }
        Ok(())
    }

    /// Writes a section per variant of a tagged enum.
    fn variant_tables(&mut self, ty: &Type, key_path: &str, title: &str) -> Result<()> {
        let Body::Enum(variants) = &ty.body else { return Ok(()) };
        let tag = ty.serde.text("tag").with_context(|| format!("{key_path}: an enum without a tag"))?;
        let doc = self.plain_text(&ty.doc);
        write!(self.out, "\n## {title}\n\n{doc}\n")?;
        for variant in variants {
            let held = variant.newtype_of.as_ref().and_then(|name| self.types.by_name.get(name));
            let (of, fields) = match held.map(|ty| (ty, &ty.body)) {
                Some((of, Body::Struct(fields))) => (of, fields),
                _ => (ty, &variant.fields),
            };
            let heading = format!("### `{tag} = \"{}\"`", ty.value_name(variant));
            let doc = self.plain_text(&variant.doc);
            self.key_table(of, fields, &heading, &doc)?;
        }
        Ok(())
    }

    fn key_table(&mut self, of: &Type, fields: &[Field], heading: &str, doc: &str) -> Result<()> {
        write!(self.out, "\n{heading}\n")?;
        if !doc.is_empty() {
            write!(self.out, "\n{doc}\n")?;
        }
        let fields: Vec<_> = fields.iter().filter(|field| !field.serde.has("flatten")).collect();
        if fields.is_empty() {
            return Ok(());
        }
        write!(self.out, "\n| key | value | default | meaning |\n|---|---|---|---|\n")?;
        for field in fields {
            ensure!(!field.doc.is_empty(), "the key `{}` under `{heading}` has no documentation", field.name);
            let doc = self.plain_text(&field.doc);
            let (meaning, stated) = stated_default(&doc);
            let default = match self.types.default_of(of, field) {
                DefaultValue::Required => "must be set".to_owned(),
                DefaultValue::Absent => stated.to_owned(),
                DefaultValue::Value(value) => format!("`{value}`"),
            };
            let (value, doc) = (self.value(&field.ty), self.field_meaning(field, meaning));
            let (value, default, doc) = (escape_cell(&value), escape_cell(&default), escape_cell(&doc));
            writeln!(self.out, "| `{}` | {value} | {default} | {doc} |", field.name)?;
        }
        Ok(())
    }

    /// Meaning of a field, with each value of an enum.
    fn field_meaning(&self, field: &Field, meaning: &str) -> String {
        let mut text = meaning.to_owned();
        let ty = self.types.by_name.get(element_type(&field.ty).0).filter(|ty| is_name_enum(ty));
        if let Some((ty, Body::Enum(variants))) = ty.map(|ty| (ty, &ty.body)) {
            for variant in variants {
                let doc = self.plain_text(&variant.doc);
                let doc = doc.trim_end_matches('.');
                let _ = write!(text, "<br>`\"{}\"`: {doc}", ty.value_name(variant));
            }
        }
        text
    }

    /// Text for the value of a type.
    fn value(&self, ty: &str) -> String {
        let (inner, is_list) = element_type(ty);
        if let Some((text, _)) = hand_written(inner) {
            return text.to_owned();
        }
        let word = match inner {
            "String" => "text",
            "PathBuf" => "path",
            "bool" => "true or false",
            "f64" => "number",
            "u64" | "usize" | "u32" | "i64" => "integer",
            "[f64;2]" => "two numbers",
            "BTreeMap<String,f64>" => "table of numbers",
            "Value" => "any",
            _ if self.types.by_name.get(inner).is_some_and(is_name_enum) => "one of those named",
            _ => "table",
        };
        let many = |word: &str| match word {
            "text" => "list of texts".to_owned(),
            word => format!("list of {word}s"),
        };
        if is_list { many(word) } else { word.to_owned() }
    }

    /// Documentation without links to Rust items: a constant becomes its value, any other its name.
    fn plain_text(&self, doc: &str) -> String {
        let mut parts = doc.split("[`");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) = part.split_once("`]").unwrap_or((part, ""));
            match self.types.constant(name) {
                Some(value) => text.push_str(value),
                None => text.extend(["`", name, "`"]),
            }
            text.push_str(rest);
        }
        text.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()
    }
}

/// Splits documentation that ends with "By default this." into the text before and "this".
fn stated_default(doc: &str) -> (&str, &str) {
    let stated = doc.rsplit_once(" By default ");
    stated.map_or((doc, ""), |(meaning, default)| (meaning, default.trim_end_matches('.')))
}

fn hand_written(name: &str) -> Option<(&'static str, Option<&'static str>)> {
    HAND_WRITTEN.iter().find(|(hand, ..)| *hand == name).map(|(_, text, keys)| (*text, *keys))
}

/// Type without `Option` and `Vec`, and whether it had a `Vec`.
fn element_type(ty: &str) -> (&str, bool) {
    let inner = strip_generic(ty, "Option<").unwrap_or(ty);
    strip_generic(inner, "Vec<").map_or((inner, false), |inner| (inner, true))
}

fn strip_generic<'a>(ty: &'a str, outer: &str) -> Option<&'a str> {
    ty.strip_prefix(outer)?.strip_suffix('>')
}

/// Whether a type is an enum of plain names.
fn is_name_enum(ty: &Type) -> bool {
    matches!(&ty.body, Body::Enum(variants) if variants.iter().all(|v| v.fields.is_empty() && v.newtype_of.is_none()))
        && !ty.serde.has("tag")
}

/// Escapes text for a table cell.
fn escape_cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found() {
        assert_eq!(element_type("Option<Vec<Stage>>"), ("Stage", true));
        assert_eq!(element_type("Option<u64>"), ("u64", false));
        assert_eq!(element_type("BTreeMap<String,f64>"), ("BTreeMap<String,f64>", false));
    }

    #[test]
    fn a_default_in_words_is_found() {
        assert_eq!(stated_default("Width. By default 1e-5."), ("Width.", "1e-5"));
        assert_eq!(stated_default("Width."), ("Width.", ""));
    }

    #[test]
    fn a_table_follows_from_a_type() {
        let source = "/// All.\nstruct Run { /// Where.\n path: PathBuf, /// How.\n mode: Option<Mode>, \
                      /// Parts.\n #[serde(default)] parts: Vec<Part> }\n\
                      #[serde(rename_all = \"lowercase\")] enum Mode { /// At once.\n Fast }\n\
                      /// A part.\nstruct Part { /// Size, a | b.\n size: u64 }";
        let mut types = TypeTable::default();
        types.read(source).expect("it is Rust");
        let mut writer = Writer { types: &types, out: String::new() };
        writer.table("Run", "", "Top").expect("every key is documented");
        let head = "| key | value | default | meaning |\n|---|---|---|---|\n";
        let expected = format!(
            "\n## Top\n\n{head}| `path` | path | must be set | Where. |\n\
             | `mode` | one of those named |  | How.<br>`\"fast\"`: At once |\n\
             | `parts` | list of tables | `[]` | Parts. |\n\
             \n## `[[parts]]`\n\nA part.\n\n{head}| `size` | integer | must be set | Size, a \\| b. |\n"
        );
        assert_eq!(writer.out, expected);
    }

    #[test]
    fn a_key_without_documentation_is_refused() {
        let mut types = TypeTable::default();
        types.read("struct Run { path: PathBuf }").expect("it is Rust");
        let mut writer = Writer { types: &types, out: String::new() };
        let error = writer.table("Run", "", "Top").expect_err("`path` says nothing").to_string();
        assert!(error.contains("`path`"), "{error}");
    }
}
