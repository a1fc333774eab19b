//! A hub on this machine: answers like the real one, or as badly as a test asks, and remembers what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::Digest;

/// The commit that every repository here is at.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What a client asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Path and query.
    pub(crate) path: String,
    /// The first byte of a `Range`.
    pub(crate) from: Option<usize>,
    /// The header with the token.
    pub(crate) authorization: Option<String>,
}

/// What the server does about it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// How many bytes of the body are sent; the header promises all of them.
    pub(crate) cut: Option<usize>,
    /// How long the connection stays open after the last byte.
    pub(crate) linger: Duration,
}

impl Reply {
    /// An answer without a body.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// An answer with a body.
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    /// The same with one more header.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The same, broken off after `bytes`.
    pub(crate) fn cut(self, bytes: usize) -> Self {
        Self { cut: Some(bytes), ..self }
    }
}

/// A running server.
pub(crate) struct Server {
    /// Its address, without a slash at the end.
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Answers with what `answer` says, given the request and how often its path was asked for before.
    pub(crate) fn start(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Self { url, asked }
    }

    /// All requests so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no handler panicked").clone()
    }

    /// The requests so far whose path ends with `name`.
    pub(crate) fn asked_for(&self, name: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.path.ends_with(name)).collect()
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked, usize) -> Reply) {
    let Some(asked) = read(&stream) else { return };
    let before = {
        let mut seen = seen.lock().expect("no handler panicked");
        let before = seen.iter().filter(|earlier| earlier.path == asked.path).count();
        seen.push(asked.clone());
        before
    };
    let reply = answer(&asked, before);
    // A client that went away is part of some tests.
    let _ = write(&mut stream, &reply);
    std::thread::sleep(reply.linger);
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let mut asked = Asked { path, from: None, authorization: None };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => asked.from = value.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok(),
            "authorization" => asked.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(asked)
}

fn write(stream: &mut TcpStream, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status);
    head += &format!("content-length: {}\r\n", reply.body.len());
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])?;
    stream.flush()
}

/// A repository's files: name, bytes, whether they are kept as large files.
pub(crate) type Files = Vec<(&'static str, Vec<u8>, bool)>;

/// A small model in two shards, with files that no one should fetch.
pub(crate) fn model() -> Files {
    let index = json!({ "weight_map": { "a": FIRST, "b": SECOND } }).to_string();
    vec![
        ("README.md", b"# Model".to_vec(), false),
        ("config.json", b"{}".to_vec(), false),
        (FIRST, noise(300_000, 1), true),
        (SECOND, noise(200_000, 2), true),
        ("model.safetensors.index.json", index.into_bytes(), false),
        ("modeling_mpt.py", b"import os".to_vec(), false),
        ("pytorch_model.bin", noise(100, 3), true),
        ("tokenizer.json", b"{\"version\": \"1.0\"}".to_vec(), false),
    ]
}

/// The shards of [`model`].
pub(crate) const FIRST: &str = "model-00001-of-00002.safetensors";
/// The second one.
pub(crate) const SECOND: &str = "model-00002-of-00002.safetensors";

/// Bytes without a pattern.
pub(crate) fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The hash that names a file in the cache.
pub(crate) fn hash(bytes: &[u8], large: bool) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if large {
        return hex(&sha2::Sha256::digest(bytes));
    }
    let header = format!("blob {}\0", bytes.len());
    hex(&sha1::Sha1::digest([header.as_bytes(), bytes].concat()))
}

/// What the hub says about a repository.
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

/// What a good hub answers, for the repository `org/name`.
pub(crate) fn good(files: &Files, asked: &Asked) -> Reply {
    if asked.path == "/api/models/org/name/revision/main?blobs=true" {
        return Reply::ok(listing(files).to_string());
    }
    let name = asked.path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/"));
    let Some((_, bytes, _)) = files.iter().find(|(file, ..)| Some(*file) == name) else {
        return Reply::status(404);
    };
    match asked.from {
        Some(from) if from >= bytes.len() => Reply::status(416),
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply { status: 206, ..Reply::ok(&bytes[from..]) }.with("content-range", range)
        }
        None => Reply::ok(bytes.clone()),
    }
}
