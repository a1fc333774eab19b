//! URLs of `http` and `https`, the redirects that may be followed, and their origin.

use std::fmt;

use ureq::http::Uri;

/// Absolute URL on a web server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url(Uri);

/// Origin of a URL: the scope of secrets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    secure: bool,
    host: String,
    port: u16,
}

impl Url {
    /// Parses an absolute URL. The error describes what was expected and does not quote the text, which may hold a
    /// secret.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "it is not a web address")?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("only http:// and https:// are supported");
        }
        match uri.authority() {
            Some(authority) if authority.as_str().contains('@') => Err("it holds a user name"),
            Some(authority) if !authority.host().is_empty() => Ok(Self(uri)),
            _ => Err("it names no host"),
        }
    }

    /// URL of a `Location` header in the response at this URL, absolute or relative.
    pub(crate) fn resolve(&self, location: &str) -> Result<Self, &'static str> {
        let scheme = self.0.scheme_str().unwrap_or("https");
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        if location.contains("://") && !location.starts_with(['/', '?', '.']) {
            Self::parse(location)
        } else if location.starts_with("//") {
            Self::parse(&format!("{scheme}:{location}"))
        } else if location.starts_with('/') {
            Self::parse(&format!("{scheme}://{authority}{location}"))
        } else {
            let folder = self.0.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            Self::parse(&format!("{scheme}://{authority}{folder}/{location}"))
        }
    }

    /// URL of `path` below this one. `path` begins with a slash and is percent-encoded.
    pub(crate) fn append_path(&self, path: &str) -> Result<Self, &'static str> {
        Self::parse(&format!("{}{path}", self.to_string().trim_end_matches('/')))
    }

    /// Origin.
    pub(crate) fn origin(&self) -> Origin {
        let secure = self.is_secure();
        let port = self.0.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Origin { secure, host: self.host().to_ascii_lowercase(), port }
    }

    /// Whether the connection is encrypted.
    pub(crate) fn is_secure(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Host name.
    pub(crate) fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    /// URL as the HTTP library takes it.
    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for Url {
    /// Prints no query, which holds the signature of signed URLs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        write!(f, "{}://{authority}{}", self.0.scheme_str().unwrap_or_default(), self.0.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a good address")
    }

    #[test]
    fn only_plain_web_addresses_are_taken() {
        for text in ["", "/a", "ftp://a/b", "file:///etc/passwd", "http://", "https://me:secret@a/b", "a b"] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn locations_are_absolute_or_relative() {
        let base = url("https://hub.example/org/name/resolve/main/a.json");
        let joined = |location: &str| base.resolve(location).map(|to| to.uri().to_string());
        assert_eq!(joined("http://cdn.example/x?s=1"), Ok("http://cdn.example/x?s=1".to_owned()));
        assert_eq!(joined("//cdn.example/x"), Ok("https://cdn.example/x".to_owned()));
        assert_eq!(joined("/new/a.json?x=://"), Ok("https://hub.example/new/a.json?x=://".to_owned()));
        assert_eq!(joined("b.json"), Ok("https://hub.example/org/name/resolve/main/b.json".to_owned()));
        assert!(joined("ftp://cdn.example/x").is_err());
        assert!(joined("https://me@cdn.example/x").is_err());
    }

    #[test]
    fn paths_go_below_the_endpoint() {
        for (endpoint, expected) in [
            ("http://localhost:80", "http://localhost:80/a%2Fb?x=1"),
            ("https://mirror.example/hf", "https://mirror.example/hf/a%2Fb?x=1"),
        ] {
            let below = url(endpoint).append_path("/a%2Fb?x=1").expect("a good address");
            assert_eq!(below.uri().to_string(), expected);
        }
    }

    #[test]
    fn a_server_is_scheme_host_and_port() {
        let origin = |text| url(text).origin();
        assert_eq!(origin("https://Hub.example/a"), origin("https://hub.example:443/b"));
        assert_ne!(origin("https://hub.example/"), origin("http://hub.example/"));
        assert_ne!(origin("https://hub.example/"), origin("https://hub.example:8443/"));
        assert_ne!(origin("https://hub.example/"), origin("https://cdn.hub.example/"));
    }

    #[test]
    fn signatures_are_not_shown() {
        assert_eq!(url("https://cdn.example/x?Signature=abc").to_string(), "https://cdn.example/x");
    }
}
