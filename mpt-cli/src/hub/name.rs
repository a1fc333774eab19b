//! Checked names of repositories, revisions and files: safe as parts of paths and URLs.

use std::fmt;
use std::str::FromStr;

/// Repository id: `name` or `organization/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RepoId(String);

impl RepoId {
    /// Name of the repository's folder in the cache.
    pub(crate) fn cache_dir_name(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }
}

impl FromStr for RepoId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split('/').collect();
        if parts.len() <= 2 && parts.iter().all(|part| is_repo_part(part)) {
            return Ok(Self(text.to_owned()));
        }
        Err("expected `name` or `organization/name` of letters, digits, `-`, `_` and `.`, such as \
             `mosaicml/mpt-7b`"
            .to_owned())
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `part` is a valid half of an id. `--` stands for the slash in the cache, so no name may contain it.
fn is_repo_part(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=96).contains(&part.len())
        && part.chars().all(plain)
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
        && !part.contains("--")
        && !part.contains("..")
}

/// Branch, tag or commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revision(String);

impl Revision {
    /// Revision as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a full commit hash.
    pub(crate) fn is_commit(&self) -> bool {
        is_hex(&self.0, 40)
    }
}

impl FromStr for Revision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '@');
        let part = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['-', '.'])
                && !part.contains("..")
                && part.chars().all(plain)
        };
        if text.len() <= 200 && text.split('/').all(part) {
            return Ok(Self(text.to_owned()));
        }
        Err("expected a branch, tag or commit, such as `main`, `v1.0` or `refs/pr/1`".to_owned())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` consists of `len` lower-case hexadecimal digits.
pub(crate) fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a file name that a server sent stays below its folder.
pub(crate) fn is_safe_file_name(name: &str) -> bool {
    let part = |part: &str| !matches!(part, "" | "." | "..");
    name.split('/').all(part) && !name.contains('\\') && !name.contains(char::is_control)
}

/// Percent-encoding of `text` for one segment of a URL's path.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_one_or_two_plain_words() {
        let folder = |text: &str| text.parse::<RepoId>().map(|repo| repo.cache_dir_name());
        assert_eq!(folder("mosaicml/mpt-7b"), Ok("models--mosaicml--mpt-7b".to_owned()));
        assert_eq!(folder("gpt2"), Ok("models--gpt2".to_owned()));
        for text in
            ["", "/", "a/b/c", "../x", "a/..", "a/.b", "a--b/c", "a b", "a/b?c", "https://x/y", "a\\b"]
        {
            assert!(text.parse::<RepoId>().is_err(), "{text}");
        }
    }

    #[test]
    fn revisions_may_hold_slashes_but_go_nowhere() {
        for text in ["main", "v1.0", "refs/pr/1"] {
            assert!(text.parse::<Revision>().is_ok(), "{text}");
        }
        for text in ["", "/", "a//b", "..", "a/../b", "a..b", "-x", ".hidden", "a b", "a%2Fb"] {
            assert!(text.parse::<Revision>().is_err(), "{text}");
        }
        assert!("0123456789abcdef0123456789abcdef01234567".parse::<Revision>().is_ok_and(|r| r.is_commit()));
    }

    #[test]
    fn file_names_cannot_leave_their_folder() {
        assert!(
            is_safe_file_name("model-00001-of-00002.safetensors") && is_safe_file_name("onnx/model.onnx")
        );
        for name in ["", "/etc/passwd", "../x", "a/../x", "a//b", "a\\b", "a\0b", "a\nb", ".", "a/."] {
            assert!(!is_safe_file_name(name), "{name:?}");
        }
    }

    #[test]
    fn url_parts_are_escaped_byte_by_byte() {
        assert_eq!(percent_encoded("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(percent_encoded("a é?#"), "a%20%C3%A9%3F%23");
    }
}
