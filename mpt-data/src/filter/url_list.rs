//! `url_list`: documents by their addresses.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{DocumentView, DropReason, Rule, URL_LIST, list_file};
use crate::error::{Error, Result};

/// List of domains and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UrlList {
    /// Field or column with the address.
    #[serde(default = "url")]
    pub field: String,
    /// File with an entry per line, relative to the run file; lines that begin with `#` are comments. A domain stands for
    /// its subdomains too, an address with a path for everything below it.
    pub path: String,
    /// Action for listed documents.
    #[serde(default)]
    pub listed: ListedAction,
}

fn url() -> String {
    "url".to_owned()
}

/// Action for listed documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListedAction {
    /// Drop them; a document without the field is kept.
    #[default]
    Drop,
    /// Keep them alone; a document without the field is dropped.
    Keep,
}

/// Loaded list.
#[derive(Debug)]
pub(super) struct UrlMatcher {
    field: String,
    listed: ListedAction,
    entries: HashSet<String>,
}

impl UrlMatcher {
    pub(super) fn load(list: &UrlList, path: &Path) -> Result<Self> {
        let lines = list_file::entries(path)?;
        let lines = lines.iter().filter(|line| !line.starts_with('#'));
        let entries: Option<HashSet<_>> = lines.map(|line| normal(line)).collect();
        let entries = entries.filter(|entries| !entries.is_empty()).ok_or_else(|| {
            Error::input(
                path,
                "expected a domain or an address a line, such as `example.com` or `example.com/ads`",
            )
        })?;
        Ok(Self { field: list.field.clone(), listed: list.listed, entries })
    }

    /// Entry that matches an address: of its host or a domain above it, and of its path or a folder above it.
    fn entry(&self, address: &str) -> Option<&str> {
        let address = normal(address)?;
        let host_end = address.find('/').unwrap_or(address.len());
        let (host, path) = address.split_at(host_end);
        let folders: Vec<usize> = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).collect();
        let domains = std::iter::once(0).chain(host.match_indices('.').map(|(at, _)| at + 1));
        for domain in domains {
            for end in &folders {
                if let Some(entry) = self.entries.get(&address[domain..host_end + end]) {
                    return Some(entry);
                }
            }
        }
        None
    }
}

/// Address without scheme, user, port, query, fragment and closing `/`, its host in lower case; `None` without a host.
fn normal(address: &str) -> Option<String> {
    let address = address.trim();
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    };
    let host = host.trim_end_matches('.').to_lowercase();
    (!host.is_empty()).then(|| host + path.trim_end_matches('/'))
}

impl Rule for UrlMatcher {
    fn apply(&self, view: &mut DocumentView<'_>) -> Option<DropReason> {
        let address = view.field(&self.field);
        let value = match (self.listed, address, address.and_then(|address| self.entry(address))) {
            (ListedAction::Drop, _, Some(entry)) => entry.to_owned(),
            (ListedAction::Keep, None, _) => format!("{} absent", self.field),
            (ListedAction::Keep, Some(address), None) => format!("{}={address}", self.field),
            (ListedAction::Drop, _, None) | (ListedAction::Keep, Some(_), Some(_)) => return None,
        };
        Some(DropReason { rule: URL_LIST, value })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::drop_with_field;
    use super::*;

    fn list(listed: ListedAction) -> UrlMatcher {
        let entries = ["Example.com.", "https://news.org/ads/", "10.0.0.1"];
        let entries = entries.into_iter().map(|entry| normal(entry).expect("an address")).collect();
        UrlMatcher { field: "url".into(), listed, entries }
    }

    #[test]
    fn domains_and_paths_are_compared_by_their_parts() {
        let list = list(ListedAction::Drop);
        for (address, entry) in [
            ("http://example.com", Some("example.com")),
            ("https://user:pass@a.b.EXAMPLE.com:8080/x?y#z", Some("example.com")),
            ("example.com./", Some("example.com")),
            ("https://notexample.com/", None),
            ("https://example.com.org/", None),
            ("https://example.org/?to=example.com", None),
            ("https://news.org/ads", Some("news.org/ads")),
            ("https://www.news.org/ads/a/b.html", Some("news.org/ads")),
            ("https://news.org/adsl", None),
            ("https://news.org/Ads", None),
            ("http://10.0.0.1:80/", Some("10.0.0.1")),
            ("", None),
            ("https://", None),
        ] {
            assert_eq!(list.entry(address), entry, "{address}");
        }
    }

    #[test]
    fn listed_documents_go_or_are_all_that_stays() {
        let verdict = |listed, url| drop_with_field(&list(listed), "url", url);
        assert_eq!(verdict(ListedAction::Drop, Some("http://x.example.com/")), Some("example.com".into()));
        assert_eq!(verdict(ListedAction::Drop, Some("http://other.com/")), None);
        assert_eq!(verdict(ListedAction::Drop, None), None);
        assert_eq!(verdict(ListedAction::Keep, Some("http://x.example.com/")), None);
        assert_eq!(
            verdict(ListedAction::Keep, Some("http://other.com/")),
            Some("url=http://other.com/".into())
        );
        assert_eq!(verdict(ListedAction::Keep, None), Some("url absent".into()));
    }
}
