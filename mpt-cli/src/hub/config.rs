//! Settings of the hub's client, from the `HF_*` environment variables. An empty variable counts as unset.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::exit::{CliError, ExitStatus};
use crate::hub::url::Url;

/// Time without a byte after which a request fails.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings that all clients of the hub share.
#[derive(Debug)]
pub(crate) struct HubConfig {
    /// `HF_ENDPOINT`, without a slash at its end.
    pub(crate) endpoint: Url,
    /// `HF_TOKEN`, else the token file of a login.
    pub(crate) token: Option<Token>,
    /// `HF_HUB_CACHE`: folder of the shared cache.
    pub(crate) cache: PathBuf,
    /// `HF_HUB_OFFLINE`.
    pub(crate) offline: bool,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`.
    pub(crate) timeout: Duration,
    /// `SSL_CERT_FILE`: root certificates that replace the built-in ones.
    pub(crate) certificates: Option<PathBuf>,
}

/// Access token. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// Value of the `Authorization` header.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Lookup of an environment variable by name.
type EnvLookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl HubConfig {
    /// Settings from the environment of this process.
    ///
    /// # Errors
    /// Exit status 2 with the name of the variable.
    pub(crate) fn from_process() -> Result<Self, CliError> {
        Self::read(&|name| std::env::var_os(name))
    }

    fn read(lookup: EnvLookup<'_>) -> Result<Self, CliError> {
        let var = &|name: &str| lookup(name).filter(|value| !value.is_empty());
        let home = home(var)?;
        Ok(Self {
            endpoint: endpoint(var)?,
            token: token(var, &home)?,
            cache: var("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            offline: utf8_var(var, "HF_HUB_OFFLINE")?.is_some_and(|value| is_truthy(&value)),
            timeout: timeout(var)?,
            certificates: var("SSL_CERT_FILE").map(PathBuf::from),
        })
    }
}

/// `HF_HOME`: folder of the cache and the token file.
fn home(var: EnvLookup<'_>) -> Result<PathBuf, CliError> {
    if let Some(home) = var("HF_HOME") {
        return Ok(home.into());
    }
    let cache = var("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let no_home = || {
        CliError::usage("there is no home folder to keep downloads in").help("set HF_HOME, or give `--dir`")
    };
    cache.map(|cache| cache.join("huggingface")).ok_or_else(no_home)
}

fn endpoint(var: EnvLookup<'_>) -> Result<Url, CliError> {
    let value = utf8_var(var, "HF_ENDPOINT")?.unwrap_or_else(|| "https://huggingface.co".to_owned());
    Url::parse(value.trim_end_matches('/')).map_err(|what| {
        CliError::usage(format!("HF_ENDPOINT: {what}"))
            .help("give an address such as https://huggingface.co, or unset it")
    })
}

fn token(var: EnvLookup<'_>, home: &Path) -> Result<Option<Token>, CliError> {
    let (source, value) = match utf8_var(var, "HF_TOKEN")? {
        Some(value) => ("HF_TOKEN".to_owned(), value),
        None => {
            let path = var("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
            match fs::read_to_string(&path) {
                Ok(value) => (path.display().to_string(), value),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Ok(None);
                }
                Err(error) => return Err(CliError::read(ExitStatus::Usage, &path, error)),
            }
        }
    };
    let value = value.trim();
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CliError::usage(format!(
            "{source}: this is no token: it holds spaces or odd characters"
        ))
        .help("a token is one word, such as hf_…; make one in the settings of your account"));
    }
    Ok((!value.is_empty()).then(|| Token(value.to_owned())))
}

fn timeout(var: EnvLookup<'_>) -> Result<Duration, CliError> {
    let Some(value) = utf8_var(var, "HF_HUB_DOWNLOAD_TIMEOUT")? else { return Ok(DEFAULT_TIMEOUT) };
    match value.trim().parse() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(CliError::usage(format!(
            "HF_HUB_DOWNLOAD_TIMEOUT is `{value}`, expected seconds from 1 to 86400"
        ))),
    }
}

fn is_truthy(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str())
}

fn utf8_var(var: EnvLookup<'_>, name: &str) -> Result<Option<String>, CliError> {
    let value = var(name).map(OsString::into_string).transpose();
    value.map_err(|_| CliError::usage(format!("{name}: it is not valid UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[(&str, &str)]) -> Result<HubConfig, CliError> {
        let var = |name: &str| values.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        HubConfig::read(&var)
    }

    #[test]
    fn defaults_are_those_of_other_clients() {
        let read = read(&[("XDG_CACHE_HOME", "/c"), ("HF_TOKEN", ""), ("HF_ENDPOINT", "")]).expect("fine");
        assert_eq!(read.cache, Path::new("/c/huggingface/hub"));
        assert_eq!(read.endpoint.host(), "huggingface.co");
        assert_eq!((read.token, read.offline, read.timeout), (None, false, DEFAULT_TIMEOUT));
    }

    #[test]
    fn variables_are_taken() {
        let values = [
            ("HF_HOME", "/h"),
            ("HF_TOKEN", " hf_secret\n"),
            ("HF_ENDPOINT", "http://localhost:8080/hub/"),
            ("HF_HUB_OFFLINE", "True"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "3"),
        ];
        let read = read(&values).expect("fine");
        assert_eq!((read.cache.as_path(), read.offline), (Path::new("/h/hub"), true));
        assert_eq!(read.endpoint.to_string(), "http://localhost:8080/hub");
        assert_eq!(read.timeout, Duration::from_secs(3));
        assert!(!format!("{read:?}").contains("secret"));
        assert_eq!(read.token.map(|token| token.header()), Some("Bearer hf_secret".to_owned()));
    }

    #[test]
    fn wrong_values_are_named_and_tokens_not_quoted() {
        for (name, value) in [
            ("HF_ENDPOINT", "huggingface.co"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
            ("HF_TOKEN", "hf_secret\r\nHost: x"),
        ] {
            let error = read(&[("HF_HOME", "/h"), (name, value)]).expect_err(name);
            assert_eq!(error.status(), ExitStatus::Usage);
            assert!(error.to_string().contains(name) && !error.to_string().contains("secret"), "{error}");
        }
    }
}
