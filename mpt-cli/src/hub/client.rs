//! Requests to the hub: the token goes to the hub alone, redirects are followed by hand, answers are bounded.

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
use crate::hub::Request;
use crate::hub::address::Address;
use crate::hub::environment::{Environment, Token};
use crate::hub::listing::{self, Listing};
use crate::hub::name::{Repo, Revision, escaped};
use crate::hub::retry::{Failure, Retries, go_on};
use crate::output::Log;

/// How many redirects one request may take.
const MAX_REDIRECTS: usize = 5;
/// The largest list of files that is read: some hundred bytes a file.
const MAX_LISTING_BYTES: u64 = 16 << 20;
/// The largest header of an answer.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// The longest wait that a server may ask for.
const MAX_ASKED_WAIT: Duration = Duration::from_secs(60);

/// Asks the hub about one revision of one repository.
pub(crate) struct Client<'a> {
    agent: ureq::Agent,
    endpoint: &'a Address,
    token: Option<&'a Token>,
    repo: &'a Repo,
    revision: &'a Revision,
    log: &'a Log,
    stop: &'static AtomicBool,
}

impl<'a> Client<'a> {
    /// A client that has not asked yet.
    ///
    /// # Errors
    /// Exit status 2 when `SSL_CERT_FILE` cannot be used.
    pub(crate) fn new(
        environment: &'a Environment,
        request: &'a Request,
        log: &'a Log,
        stop: &'static AtomicBool,
    ) -> Result<Self, CliError> {
        Ok(Self {
            agent: agent(environment)?,
            endpoint: &environment.endpoint,
            token: environment.token.as_ref(),
            repo: &request.repo,
            revision: &request.revision,
            log,
            stop,
        })
    }

    /// The way to stderr.
    pub(crate) fn log(&self) -> &'a Log {
        self.log
    }

    /// The flag that says to stop.
    pub(crate) fn stop(&self) -> &'static AtomicBool {
        self.stop
    }

    /// The repository's name.
    pub(crate) fn name(&self) -> String {
        self.repo.to_string()
    }

    /// What the repository holds that mpt needs.
    ///
    /// # Errors
    /// Exit status 3 where the hub has no such revision, refuses it or answers nonsense, 4 for network trouble.
    pub(crate) fn listing(&self) -> Result<Listing, CliError> {
        let revision = escaped(self.revision.as_str());
        let address = self.address(&format!("/api/models/{}/revision/{revision}?blobs=true", self.repo))?;
        let mut retries = Retries::new(self.log, self.stop);
        let answer = loop {
            match self.small(&address) {
                Ok(answer) => break answer,
                Err(failure) => retries.wait(failure)?,
            }
        };
        let listing = listing::parse(&answer).map_err(|what| {
            CliError::data(format!("{address}: this is no list of files: {what}"))
                .help("check HF_ENDPOINT; nothing was downloaded")
        })?;
        self.usable(listing)
    }

    fn usable(&self, listing: Listing) -> Result<Listing, CliError> {
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

    /// A file of a commit, from byte `from` on where the server can: status 200, 206 or 416.
    pub(crate) fn file(&self, commit: &str, name: &str, from: u64) -> Result<Response<Body>, Failure> {
        let address = self.address(&format!("/{}/resolve/{commit}/{}", self.repo, escaped(name)))?;
        self.get(&address, from)
    }

    fn address(&self, path: &str) -> Result<Address, CliError> {
        self.endpoint.below(path).map_err(|what| CliError::usage(format!("HF_ENDPOINT: {what}")))
    }

    fn small(&self, address: &Address) -> Result<Vec<u8>, Failure> {
        let mut response = self.get(address, 0)?;
        let body = response.body_mut().with_config().limit(MAX_LISTING_BYTES);
        body.read_to_vec().map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(limit) => {
                CliError::data(format!("{address}: the answer is longer than {limit} bytes"))
                    .help("check HF_ENDPOINT; nothing was downloaded")
                    .into()
            }
            error => broken(address.host(), error),
        })
    }

    /// Asks, and follows redirects.
    fn get(&self, address: &Address, from: u64) -> Result<Response<Body>, Failure> {
        let mut address = address.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.ask(&address, from)?;
            if !response.status().is_redirection() {
                return self.checked(&address, response);
            }
            address = self.redirected(&address, &response)?;
        }
        Err(bad_server(format!("{}: more than {MAX_REDIRECTS} redirects", address.host())).into())
    }

    fn ask(&self, address: &Address, from: u64) -> Result<Response<Body>, Failure> {
        go_on(self.stop)?;
        let mut request = self.agent.get(address.uri());
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        if let Some(token) = self.token.filter(|_| address.origin() == self.endpoint.origin()) {
            request = request.header("authorization", token.header());
        }
        request.call().map_err(|error| match error {
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                untrusted(address.host(), error).into()
            }
            error => broken(address.host(), error),
        })
    }

    fn redirected(&self, from: &Address, response: &Response<Body>) -> Result<Address, CliError> {
        let refuse =
            |what: &str| bad_server(format!("{}: a redirect cannot be followed: {what}", from.host()));
        let location = header(response, "location").ok_or_else(|| refuse("it does not say where to"))?;
        let to = from.join(location).map_err(refuse)?;
        if self.endpoint.is_secure() && !to.is_secure() {
            return Err(refuse("it leads from https to http"));
        }
        Ok(to)
    }

    fn checked(&self, address: &Address, response: Response<Body>) -> Result<Response<Body>, Failure> {
        let code = response.status().as_u16();
        match code {
            200 | 206 | 416 => Ok(response),
            401 | 403 | 404 if address.origin() == self.endpoint.origin() => {
                Err(self.refused(address, code, &response).into())
            }
            // Addresses that the hub redirects to are signed for a while: the next request gets a new one.
            401 | 403 | 404 => Err(Failure::Passing(refused_elsewhere(address, code), None)),
            408 | 425 | 429 | 500.. => {
                let error = CliError::system(format!("{}: the server answers {code}", address.host()))
                    .help("the server has trouble; run the same command later to continue");
                Err(Failure::Passing(error, asked_wait(&response)))
            }
            _ => Err(bad_server(format!("{address}: the server answers {code}")).into()),
        }
    }

    /// What a refusal means: the hub says so in a header of its own.
    fn refused(&self, address: &Address, code: u16, response: &Response<Body>) -> CliError {
        let (repo, revision) = (self.repo, self.revision);
        match (code, header(response, "x-error-code")) {
            (404, Some("RevisionNotFound")) => {
                CliError::data(format!("{repo}: there is no revision `{revision}` (404)"))
                    .help("`--revision` takes a branch, tag or commit of the repository")
            }
            (404, Some("EntryNotFound")) => CliError::data(format!("{address}: there is no such file (404)"))
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

/// An answer that could not be read to its end, or did not come at all.
pub(crate) fn broken(host: &str, error: ureq::Error) -> Failure {
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
    if passes { Failure::Passing(error, None) } else { Failure::Final(error) }
}

/// A server that does not prove to be the one asked for.
fn untrusted(host: &str, source: io::Error) -> CliError {
    let error = anyhow::Error::new(source).context(format!("{host}: no secure connection is possible"));
    CliError::new(ExitStatus::System, error).help(
        "check HF_ENDPOINT; where a proxy reads along, point SSL_CERT_FILE to a PEM file with its root certificate",
    )
}

/// A header's value, if it is plain text.
pub(crate) fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

fn bad_server(message: String) -> CliError {
    CliError::system(message).help("check HF_ENDPOINT and the proxy settings")
}

fn refused_elsewhere(address: &Address, code: u16) -> CliError {
    let message = format!("{}: the server that the hub sends us to refuses access ({code})", address.host());
    CliError::data(message).help("run the same command later to continue")
}

fn asked_wait(response: &Response<Body>) -> Option<Duration> {
    let seconds = header(response, "retry-after")?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_ASKED_WAIT))
}

fn agent(environment: &Environment) -> Result<ureq::Agent, CliError> {
    let timeout = Some(environment.timeout);
    let mut tls = TlsConfig::builder();
    if let Some(path) = &environment.certificates {
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

/// The root certificates in a PEM file.
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
