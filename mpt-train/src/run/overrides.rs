//! Overrides of a run file: `a.b=value` settings, applied to its table before it is read as a run.

use crate::error::{Error, Result};

/// Maximum number of characters of an override shown in a message.
const LONGEST_SHOWN: usize = 200;

/// Maximum depth of a key; those of run files have up to three parts.
const MAX_DEPTH: usize = 16;

/// Text of a run file, parsed as `table`, with overrides applied.
pub(super) fn overridden(mut table: toml::Table, overrides: &[String]) -> Result<String> {
    for setting in overrides {
        let shown: String = setting.chars().take(LONGEST_SHOWN).collect();
        let wrong = |problem: &str| Error::Override { text: shown.clone(), problem: problem.to_owned() };
        let (key, value) = setting.split_once('=').ok_or_else(|| wrong("there is no `=`"))?;
        let mut parts: Vec<_> = key.split('.').map(str::trim).collect();
        if parts.len() > MAX_DEPTH {
            return Err(wrong("the key has more than 16 parts"));
        }
        let last = parts.pop().filter(|last| !last.is_empty()).ok_or_else(|| wrong("there is no key"))?;
        let mut parent = &mut table;
        for part in parts {
            let inner = parent.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            parent = inner.as_table_mut().ok_or_else(|| wrong("a part of the key is no table"))?;
        }
        parent.insert(last.to_owned(), parse_value(value.trim()));
    }
    Ok(toml::to_string(&table).expect("a table that was read can be written"))
}

/// Value of an override: TOML where it parses, else the text as a string, so that strings need no quotes.
fn parse_value(text: &str) -> toml::Value {
    let parsed = format!("value = {text}").parse::<toml::Table>();
    parsed
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}
