//! Local stand-in for the hub. It responds as the real one does, or as badly as a test asks, and records its requests.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::Digest;

/// Commit of every repository.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Request of a client.
#[derive(Debug, Clone)]
pub(crate) struct RecordedRequest {
    /// Path and query.
    pub(crate) path: String,
    /// First byte of a `Range` header.
    pub(crate) from: Option<usize>,
    /// `Authorization` header.
    pub(crate) authorization: Option<String>,
}

/// Response to a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct CannedResponse {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Number of bytes that are sent. The header promises the whole body.
    pub(crate) truncated_at: Option<usize>,
    /// Time that the connection stays open after the last byte.
    pub(crate) linger: Duration,
}

impl CannedResponse {
    /// Response without a body.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Response with a body and status 200.
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    /// Response with one more header.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Response that breaks off after `bytes`.
    pub(crate) fn truncated_at(self, bytes: usize) -> Self {
        Self { truncated_at: Some(bytes), ..self }
    }
}

/// Running server.
pub(crate) struct Server {
    /// URL, without a slash at the end.
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<RecordedRequest>>>,
}

impl Server {
    /// Starts a server that responds by `answer`, which gets the request and the number of earlier ones for its path.
    pub(crate) fn start(
        answer: impl Fn(&RecordedRequest, usize) -> CannedResponse + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (recorded, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (recorded, answer) = (Arc::clone(&recorded), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &recorded, &*answer));
            }
        });
        Self { url, requests }
    }

    /// Requests so far, in order.
    pub(crate) fn requests(&self) -> Vec<RecordedRequest> {
        self.requests.lock().expect("no handler panicked").clone()
    }

    /// Requests so far whose path ends with `name`.
    pub(crate) fn requests_for(&self, name: &str) -> Vec<RecordedRequest> {
        self.requests().into_iter().filter(|request| request.path.ends_with(name)).collect()
    }
}

fn serve(
    mut stream: TcpStream,
    recorded: &Mutex<Vec<RecordedRequest>>,
    answer: &dyn Fn(&RecordedRequest, usize) -> CannedResponse,
) {
    let Some(request) = read(&stream) else { return };
    let before = {
        let mut recorded = recorded.lock().expect("no handler panicked");
        let before = recorded.iter().filter(|earlier| earlier.path == request.path).count();
        recorded.push(request.clone());
        before
    };
    let response = answer(&request, before);
    // Some tests close the connection.
    let _ = write(&mut stream, &response);
    std::thread::sleep(response.linger);
}

fn read(stream: &TcpStream) -> Option<RecordedRequest> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let mut request = RecordedRequest { path, from: None, authorization: None };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => request.from = value.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok(),
            "authorization" => request.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(request)
}

fn write(stream: &mut TcpStream, response: &CannedResponse) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", response.status);
    head += &format!("content-length: {}\r\n", response.body.len());
    for (name, value) in &response.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    stream.write_all(&response.body[..response.truncated_at.unwrap_or(response.body.len())])?;
    stream.flush()
}

/// Files of a repository: name, bytes, whether they are stored as large files.
pub(crate) type Files = Vec<(&'static str, Vec<u8>, bool)>;

/// Small model in two shards, with files that no client should download.
pub(crate) fn model() -> Files {
    let index = json!({ "weight_map": { "a": FIRST, "b": SECOND } }).to_string();
    vec![
        ("README.md", b"# Model".to_vec(), false),
        ("config.json", b"{}".to_vec(), false),
        (FIRST, random_bytes(300_000, 1), true),
        (SECOND, random_bytes(200_000, 2), true),
        ("model.safetensors.index.json", index.into_bytes(), false),
        ("modeling_mpt.py", b"import os".to_vec(), false),
        ("pytorch_model.bin", random_bytes(100, 3), true),
        ("tokenizer.json", b"{\"version\": \"1.0\"}".to_vec(), false),
    ]
}

/// First shard of [`model`].
pub(crate) const FIRST: &str = "model-00001-of-00002.safetensors";
/// Second shard of [`model`].
pub(crate) const SECOND: &str = "model-00002-of-00002.safetensors";

/// Pseudo-random bytes.
pub(crate) fn random_bytes(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Digest that names a file in the cache.
pub(crate) fn hash(bytes: &[u8], large: bool) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if large {
        return hex(&sha2::Sha256::digest(bytes));
    }
    let header = format!("blob {}\0", bytes.len());
    hex(&sha1::Sha1::digest([header.as_bytes(), bytes].concat()))
}

/// Listing of a repository, as the hub sends it.
pub(crate) fn listing(files: &Files) -> Value {
    let siblings = files.iter().map(|(name, bytes, large)| {
        let mut file = json!({ "rfilename": name, "size": bytes.len(), "blobId": hash(bytes, false) });
        if *large {
            file["lfs"] = json!({ "sha256": hash(bytes, true), "size": bytes.len(), "pointerSize": 134 });
        }
        file
    });
    json!({ "id": "org/name", "sha": COMMIT, "siblings": siblings.collect::<Vec<_>>() })
}

/// Response of a healthy hub for the repository `org/name`.
pub(crate) fn respond_well(files: &Files, request: &RecordedRequest) -> CannedResponse {
    if request.path == "/api/models/org/name/revision/main?blobs=true" {
        return CannedResponse::ok(listing(files).to_string());
    }
    let name = request.path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/"));
    let Some((_, bytes, _)) = files.iter().find(|(file, ..)| Some(*file) == name) else {
        return CannedResponse::status(404);
    };
    match request.from {
        Some(from) if from >= bytes.len() => CannedResponse::status(416),
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            CannedResponse { status: 206, ..CannedResponse::ok(&bytes[from..]) }.with("content-range", range)
        }
        None => CannedResponse::ok(bytes.clone()),
    }
}
