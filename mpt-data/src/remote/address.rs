//! Addresses of objects: `SCHEME://HOST/KEY`.

use std::path::Path;

/// Schemes of addresses, and the name of the part after them.
const SCHEMES: [(&str, &str); 6] = [
    ("s3", "a bucket"),
    ("gs", "a bucket"),
    ("az", "a container"),
    ("https", "a host"),
    ("http", "a host"),
    // Stores that the program itself mounted.
    ("mount", "a name"),
];

/// Whether a path is an address of an object store.
pub fn is_remote(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.contains("://"))
}

/// Parsed address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address<'a> {
    /// Scheme, before `://`.
    pub(super) scheme: &'a str,
    /// Scheme, and bucket, container or host.
    pub(super) root: &'a str,
    /// Key of an object, or prefix of keys; no `/` at either end.
    pub(super) key: &'a str,
}

impl<'a> Address<'a> {
    /// Parses an address.
    ///
    /// # Errors
    /// Problem and expectation, in words.
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        let known = || SCHEMES.map(|(scheme, _)| format!("{scheme}://"))[..5].join(", ");
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| format!("no address; expected one of {}", known()))?;
        let Some((_, host)) = SCHEMES.iter().find(|(name, _)| *name == scheme) else {
            return Err(format!("`{scheme}://` is no store that can be read; expected one of {}", known()));
        };
        let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() {
            return Err(format!("there is nothing after `{scheme}://`; expected {host}"));
        }
        if authority.contains('@') {
            return Err("an address holds no user or password; give them by environment variables".to_owned());
        }
        let root = &text[..scheme.len() + 3 + authority.len()];
        Ok(Self { scheme, root, key: key.trim_matches('/') })
    }
}

/// Checks that a pattern of a source is an address that can be read.
///
/// # Errors
/// Problem and remedy, in words.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), String> {
    let address = Address::parse(pattern)?;
    if address.key.is_empty() {
        return Err(format!("expected a key or a pattern after `{}/`", address.root));
    }
    let is_wild = address.key.contains(['*', '?', '[']);
    if is_wild && matches!(address.scheme, "http" | "https") {
        return Err("a web server does not list its files; name each of them".to_owned());
    }
    glob::Pattern::new(address.key).map(|_| ()).map_err(|error| format!("not a pattern ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme_a_host_and_a_key() {
        let parts = |text| Address::parse(text).map(|address| (address.scheme, address.root, address.key));
        assert_eq!(parts("s3://b/a/*.jsonl"), Ok(("s3", "s3://b", "a/*.jsonl")));
        assert_eq!(parts("https://h:1/x/"), Ok(("https", "https://h:1", "x")));
        assert_eq!(parts("gs://b"), Ok(("gs", "gs://b", "")));
        assert!(parts("ftp://h/x").expect_err("unknown").contains("expected one of s3://, gs://, az://"));
        assert!(parts("s3:///x").expect_err("empty").contains("expected a bucket"));
        assert!(parts("https://me:secret@h/x").is_err());
        assert!(!is_remote(Path::new("a/b")) && is_remote(Path::new("s3://b/a")));
    }
}
