//! Errors of requests, each with its exit status and a help line.

use std::io;

use crate::exit::{CliError, ExitStatus};
use crate::hub::retry::Failure;
use crate::hub::url::Url;

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
pub(crate) fn tls_error(host: &str, source: io::Error) -> CliError {
    let error = anyhow::Error::new(source).context(format!("{host}: no secure connection is possible"));
    CliError::new(ExitStatus::System, error).help(
        "check HF_ENDPOINT; where a proxy reads along, point SSL_CERT_FILE to a PEM file with its root certificate",
    )
}

/// Error of a server that does not behave as the hub.
pub(crate) fn server_error(message: String) -> CliError {
    CliError::system(message).help("check HF_ENDPOINT and the proxy settings")
}

/// Error of a storage server, to which the hub redirected, that refuses access.
pub(crate) fn storage_refusal(url: &Url, code: u16) -> CliError {
    let message = format!("{}: the server that the hub sends us to refuses access ({code})", url.host());
    CliError::data(message).help("run the same command later to continue")
}
