//! HTTP client of the hub. The token is sent to the hub alone, redirects are followed one by one, and the size of
//! responses is bounded.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ureq::Body;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::exit::{CliError, ExitStatus};
use crate::hub::PullOptions;
use crate::hub::config::{HubConfig, Token};
use crate::hub::listing::{self, Listing};
use crate::hub::name::{RepoId, Revision, percent_encoded};
use crate::hub::retry::{Failure, Retries, check_interrupt};
use crate::hub::url::Url;
use crate::output::Log;

/// Maximum number of redirects of a request.
const MAX_REDIRECTS: usize = 5;
/// Maximum size of a listing: a repository needs some hundred bytes a file.
const MAX_LISTING_BYTES: u64 = 16 << 20;
/// Maximum size of the headers of a response.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Longest `Retry-After` that is honored.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Client for one revision of one repository.
pub(crate) struct Client<'a> {
    agent: ureq::Agent,
    endpoint: &'a Url,
    token: Option<&'a Token>,
    repo: &'a RepoId,
    revision: &'a Revision,
    log: &'a Log,
    stop: &'static AtomicBool,
}

impl<'a> Client<'a> {
    /// Client with the timeouts and certificates of `config`. It sends no request yet.
    ///
    /// # Errors
    /// Exit status 2 when `SSL_CERT_FILE` cannot be used.
    pub(crate) fn new(
        config: &'a HubConfig,
        options: &'a PullOptions,
        log: &'a Log,
        stop: &'static AtomicBool,
    ) -> Result<Self, CliError> {
        Ok(Self {
            agent: agent(config)?,
            endpoint: &config.endpoint,
            token: config.token.as_ref(),
            repo: &options.repo,
            revision: &options.revision,
            log,
            stop,
        })
    }

    /// Log on stderr.
    pub(crate) fn log(&self) -> &'a Log {
        self.log
    }

    /// Interrupt flag.
    pub(crate) fn stop(&self) -> &'static AtomicBool {
        self.stop
    }

    /// Repository id as text.
    pub(crate) fn repo_name(&self) -> String {
        self.repo.to_string()
    }

    /// Listing of the files that mpt reads.
    ///
    /// # Errors
    /// Exit status 3 for an unknown revision, a refusal or an invalid response, 4 for the network.
    pub(crate) fn listing(&self) -> Result<Listing, CliError> {
        let revision = percent_encoded(self.revision.as_str());
        let url = self.url(&format!("/api/models/{}/revision/{revision}?blobs=true", self.repo))?;
        let mut retries = Retries::new(self.log, self.stop);
        let body = loop {
            match self.fetch_listing(&url) {
                Ok(body) => break body,
                Err(failure) => retries.wait(failure)?,
            }
        };
        let listing = listing::parse(&body).map_err(|what| {
            CliError::data(format!("{url}: this is no list of files: {what}"))
                .help("check HF_ENDPOINT; nothing was downloaded")
        })?;
        self.check_listing(listing)
    }

    fn check_listing(&self, listing: Listing) -> Result<Listing, CliError> {
        if listing.files.is_empty() {
            return Err(CliError::data(format!(
                "{} at {}: there is no configuration, tokenizer or weights in it",
                self.repo, self.revision
            ))
            .help("look at the repository's files; a model has a config.json and *.safetensors"));
        }
        if !listing.files.iter().any(|file| listing::is_weights(&file.name)) {
            self.log.warn(format_args!("{} at {} holds no weights", self.repo, self.revision));
        }
        Ok(listing)
    }

    /// Requests a file of `commit` from byte `from` on. The status of the response is 200, 206 or 416.
    pub(crate) fn get_file(&self, commit: &str, name: &str, from: u64) -> Result<Response<Body>, Failure> {
        let url = self.url(&format!("/{}/resolve/{commit}/{}", self.repo, percent_encoded(name)))?;
        self.get(&url, from)
    }

    fn url(&self, path: &str) -> Result<Url, CliError> {
        self.endpoint.append_path(path).map_err(|what| CliError::usage(format!("HF_ENDPOINT: {what}")))
    }

    fn fetch_listing(&self, url: &Url) -> Result<Vec<u8>, Failure> {
        let mut response = self.get(url, 0)?;
        let body = response.body_mut().with_config().limit(MAX_LISTING_BYTES);
        body.read_to_vec().map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(limit) => {
                CliError::data(format!("{url}: the answer is longer than {limit} bytes"))
                    .help("check HF_ENDPOINT; nothing was downloaded")
                    .into()
            }
            error => connection_error(url.host(), error),
        })
    }

    /// Sends a GET request and follows its redirects.
    fn get(&self, url: &Url, from: u64) -> Result<Response<Body>, Failure> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&url, from)?;
            if !response.status().is_redirection() {
                return self.check_status(&url, response);
            }
            url = self.redirect_target(&url, &response)?;
        }
        Err(server_error(format!("{}: more than {MAX_REDIRECTS} redirects", url.host())).into())
    }

    fn send(&self, url: &Url, from: u64) -> Result<Response<Body>, Failure> {
        check_interrupt(self.stop)?;
        let mut request = self.agent.get(url.uri());
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        if let Some(token) = self.token.filter(|_| url.origin() == self.endpoint.origin()) {
            request = request.header("authorization", token.header());
        }
        request.call().map_err(|error| match error {
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                tls_error(url.host(), error).into()
            }
            error => connection_error(url.host(), error),
        })
    }

    fn redirect_target(&self, from: &Url, response: &Response<Body>) -> Result<Url, CliError> {
        let refuse =
            |what: &str| server_error(format!("{}: a redirect cannot be followed: {what}", from.host()));
        let location = header(response, "location").ok_or_else(|| refuse("it does not say where to"))?;
        let to = from.resolve(location).map_err(refuse)?;
        if self.endpoint.is_secure() && !to.is_secure() {
            return Err(refuse("it leads from https to http"));
        }
        Ok(to)
    }

    fn check_status(&self, url: &Url, response: Response<Body>) -> Result<Response<Body>, Failure> {
        let code = response.status().as_u16();
        match code {
            200 | 206 | 416 => Ok(response),
            401 | 403 | 404 if url.origin() == self.endpoint.origin() => {
                Err(self.refusal(url, code, &response).into())
            }
            // URLs that the hub redirects to are signed and expire; the next request gets a new one.
            401 | 403 | 404 => Err(Failure::Transient(storage_refusal(url, code), None)),
            408 | 425 | 429 | 500.. => {
                let error = CliError::system(format!("{}: the server answers {code}", url.host()))
                    .help("the server has trouble; run the same command later to continue");
                Err(Failure::Transient(error, retry_after(&response)))
            }
            _ => Err(server_error(format!("{url}: the server answers {code}")).into()),
        }
    }

    /// Error of a 401, 403 or 404 by the hub, which names the reason in `X-Error-Code`.
    fn refusal(&self, url: &Url, code: u16, response: &Response<Body>) -> CliError {
        let (repo, revision) = (self.repo, self.revision);
        match (code, header(response, "x-error-code")) {
            (404, Some("RevisionNotFound")) => {
                CliError::data(format!("{repo}: there is no revision `{revision}` (404)"))
                    .help("`--revision` takes a branch, tag or commit of the repository")
            }
            (404, Some("EntryNotFound")) => CliError::data(format!("{url}: there is no such file (404)"))
                .help("run the same command again: the repository may have changed"),
            (404, _) => CliError::data(format!(
                "{repo}: there is no such repository, or no revision `{revision}` (404)"
            ))
            .help("check the name; for a private repository set HF_TOKEN to a token that may read it"),
            _ => CliError::data(format!("{repo}: the hub refuses access ({code})")).help(self.access_help()),
        }
    }

    fn access_help(&self) -> String {
        let page = format!("{}/{}", self.endpoint.to_string().trim_end_matches('/'), self.repo);
        let token = match self.token {
            Some(_) => "see that the token in HF_TOKEN is valid and may read it",
            None => "set HF_TOKEN to a token of your account",
        };
        format!("check the name; if the repository is gated or private, ask for access on {page} and {token}")
    }
}

/// Failure of a connection, or of a response that broke off.
pub(crate) fn connection_error(host: &str, error: ureq::Error) -> Failure {
    use ureq::Error as E;
    let passes = matches!(
        error,
        E::Io(_) | E::Timeout(_) | E::HostNotFound | E::ConnectionFailed | E::Protocol(_) | E::BodyStalled
    );
    let error = anyhow::Error::new(error).context(format!("{host}: the connection failed"));
    let error = CliError::new(ExitStatus::System, error).help(
        "check the network, HF_ENDPOINT and the proxy settings, then run the same command again to continue; \
         HF_HUB_OFFLINE=1 uses what is in the cache",
    );
    if passes { Failure::Transient(error, None) } else { Failure::Permanent(error) }
}

/// Error of a server whose certificate is not trusted.
fn tls_error(host: &str, source: io::Error) -> CliError {
    let error = anyhow::Error::new(source).context(format!("{host}: no secure connection is possible"));
    CliError::new(ExitStatus::System, error).help(
        "check HF_ENDPOINT; where a proxy reads along, point SSL_CERT_FILE to a PEM file with its root certificate",
    )
}

/// Value of a header; `None` if it is absent or not plain text.
pub(crate) fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

fn server_error(message: String) -> CliError {
    CliError::system(message).help("check HF_ENDPOINT and the proxy settings")
}

fn storage_refusal(url: &Url, code: u16) -> CliError {
    let message = format!("{}: the server that the hub sends us to refuses access ({code})", url.host());
    CliError::data(message).help("run the same command later to continue")
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = header(response, "retry-after")?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

fn agent(config: &HubConfig) -> Result<ureq::Agent, CliError> {
    let timeout = Some(config.timeout);
    let mut tls = TlsConfig::builder();
    if let Some(path) = &config.certificates {
        tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates(path)?)));
    }
    let config = ureq::Agent::config_builder()
        .tls_config(tls.build())
        .user_agent(concat!("mpt/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .http_status_as_error(false)
        .max_redirects(0)
        .max_response_header_size(MAX_HEADER_BYTES)
        .timeout_resolve(timeout)
        .timeout_connect(timeout)
        .timeout_recv_response(timeout)
        .timeout_per_read(timeout)
        .timeout_per_write(timeout)
        .build();
    Ok(config.new_agent())
}

/// Root certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, CliError> {
    let help = "point SSL_CERT_FILE to a file of root certificates, or unset it";
    let unread = |error| CliError::read(ExitStatus::Usage, path, error).help(help);
    let pem = fs::read(path).map_err(unread)?;
    let items = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = items.collect();
    if certificates.is_empty() {
        return Err(
            CliError::usage(format!("{}: there is no PEM certificate in it", path.display())).help(help)
        );
    }
    Ok(certificates)
}
