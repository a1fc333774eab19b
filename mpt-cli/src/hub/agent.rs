//! HTTP agent: timeouts, certificates, and limits of responses.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::exit::{CliError, ExitStatus};
use crate::hub::config::HubConfig;

/// Maximum size of the headers of a response.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// Agent with the timeouts and certificates of `config`. It leaves redirects and statuses to its caller.
///
/// # Errors
/// Exit status 2 when `SSL_CERT_FILE` cannot be used.
pub(crate) fn agent(config: &HubConfig) -> Result<ureq::Agent, CliError> {
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
