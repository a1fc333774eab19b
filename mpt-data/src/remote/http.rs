//! HTTP client of the stores, over ureq: each request on a thread of its own, its body streamed in chunks.

use std::io::Read;
use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use tokio::sync::{mpsc, oneshot};
use ureq::http;

/// Timeout of a connection, of the first byte of an answer, and of each read and write.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most redirects of one request.
const MAX_REDIRECTS: u32 = 5;
/// Bytes in a chunk of a body.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for a slow reader.
const QUEUED_CHUNKS: usize = 4;

/// Connections of all stores; idle ones are reused.
static AGENT: LazyLock<ureq::Agent> = LazyLock::new(|| {
    ureq::Agent::config_builder()
        .user_agent(concat!("mpt/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .max_redirects_will_error(false)
        .max_idle_connections_per_host(64)
        .max_idle_connections(256)
        .timeout_resolve(Some(TIMEOUT))
        .timeout_connect(Some(TIMEOUT))
        .timeout_recv_response(Some(TIMEOUT))
        .timeout_per_read(Some(TIMEOUT))
        .timeout_per_write(Some(TIMEOUT))
        .build()
        .new_agent()
});

/// Connector of stores to ureq.
#[derive(Debug, Clone, Copy)]
pub(super) struct UreqConnector;

impl HttpConnector for UreqConnector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Self))
    }
}

/// Head of an answer, and the channel of its body.
type StreamedResponse = Result<(http::response::Parts, mpsc::Receiver<Result<Bytes, HttpError>>), HttpError>;

#[async_trait]
impl HttpService for UreqConnector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let body = body.as_bytes().cloned().unwrap_or_default();
        let (head, answer) = oneshot::channel();
        tokio::task::spawn_blocking(move || send_request(http::Request::from_parts(parts, body), head));
        let (parts, mut pieces) =
            answer.await.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))??;
        let body = stream::poll_fn(move |context| pieces.poll_recv(context).map(|piece| piece.map(framed)));
        let body = HttpResponseBody::new(StreamBody::new(body));
        Ok(HttpResponse::from_parts(parts, body))
    }
}

fn framed(piece: Result<Bytes, HttpError>) -> Result<Frame<Bytes>, HttpError> {
    piece.map(Frame::data)
}

/// Sends a request, and streams the body until the receiver is dropped.
fn send_request(request: http::Request<Bytes>, head: oneshot::Sender<StreamedResponse>) {
    let (parts, body) = request.into_parts();
    let answer = if body.is_empty() {
        AGENT.run(http::Request::from_parts(parts, ()))
    } else {
        AGENT.run(http::Request::from_parts(parts, &body[..]))
    };
    let (parts, body) = match answer {
        Ok(answer) => answer.into_parts(),
        Err(error) => return drop(head.send(Err(http_error(error)))),
    };
    let (sender, receiver) = mpsc::channel(QUEUED_CHUNKS);
    if head.send(Ok((parts, receiver))).is_err() {
        return;
    }
    let mut body = body.into_reader();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let piece = match body.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => Ok(Bytes::copy_from_slice(&buffer[..count])),
            Err(error) => Err(HttpError::new(HttpErrorKind::Interrupted, error)),
        };
        let is_last = piece.is_err();
        if sender.blocking_send(piece).is_err() || is_last {
            return;
        }
    }
}

fn http_error(error: ureq::Error) -> HttpError {
    let kind = match &error {
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::Io(_) => {
            HttpErrorKind::Connect
        }
        _ => HttpErrorKind::Request,
    };
    HttpError::new(kind, error)
}
