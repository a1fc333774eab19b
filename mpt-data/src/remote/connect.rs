//! Client of a store, from an address and the environment variables that the stores' own tools read.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::address::Address;
use super::http::UreqConnector;
use crate::error::{Error, Result};

/// Creates the client of an address's store. No request is sent yet.
///
/// # Errors
/// [`Error::Address`] when the environment does not suffice.
pub(super) fn connect(address: &Address<'_>) -> Result<Arc<dyn ObjectStore>> {
    let root = address.root;
    let store = match address.scheme {
        "s3" => s3(root),
        "gs" => GoogleCloudStorageBuilder::from_env()
            .with_url(root)
            .with_http_connector(UreqConnector)
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
        "az" => MicrosoftAzureBuilder::from_env()
            .with_url(root)
            .with_allow_http(is_plain(&["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"]))
            .with_http_connector(UreqConnector)
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
        "http" | "https" => HttpBuilder::new()
            .with_url(root)
            .with_client_options(ClientOptions::new().with_allow_http(address.scheme == "http"))
            .with_http_connector(UreqConnector)
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
        _ => {
            let problem = "nothing is mounted under this name".to_owned();
            return Err(Error::Address { url: root.to_owned(), problem, source: None });
        }
    };
    store.map_err(|error| Error::Address {
        url: root.to_owned(),
        problem: error.to_string(),
        source: Some(error.into()),
    })
}

fn s3(root: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder =
        AmazonS3Builder::from_env().with_url(root).with_http_connector(UreqConnector).with_retry(retry());
    // An endpoint without TLS is used without TLS.
    if is_plain(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]) {
        builder = builder.with_allow_http(true);
    }
    builder.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
}

fn is_plain(variables: &[&str]) -> bool {
    let value = variables.iter().find_map(|name| std::env::var(name).ok());
    value.is_some_and(|value| value.starts_with("http://"))
}

/// Retries of credentials and listings alone. Ranges have retries of their own in `fetch`.
fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(60) }
}
