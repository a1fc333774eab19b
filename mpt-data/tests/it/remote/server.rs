//! A web server of one folder on the loopback interface: whole files and ranges of them, nothing else.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

/// Serves a folder until the process ends; returns its address.
pub(super) fn serve(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || talk(stream, &folder));
        }
    });
    address
}

/// Answers requests of one connection until it ends.
fn talk(stream: TcpStream, folder: &Path) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let mut request = head[0].split(' ');
        let (method, path) = (request.next()?.to_owned(), request.next()?.to_owned());
        let header = |name: &str| {
            let found = head.iter().filter_map(|line| line.split_once(':'));
            found.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let (mut answer, body) = answer(&folder.join(path.trim_start_matches('/')), header("range"));
        let _ = write!(answer, "Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(answer.as_bytes()).ok()?;
        if method == "GET" {
            stream.write_all(&body).ok()?;
        }
    }
}

/// The head of an answer up to the length, and its body.
fn answer(path: &PathBuf, range: Option<&str>) -> (String, Vec<u8>) {
    let Ok(bytes) = std::fs::read(path) else {
        return ("HTTP/1.1 404 Not Found\r\n".to_owned(), Vec::new());
    };
    let tag = format!("ETag: \"{:x}\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n", bytes.len());
    let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return (format!("HTTP/1.1 200 OK\r\n{tag}"), bytes);
    };
    let (first, last): (usize, usize) = (first.parse().expect("a number"), last.parse().expect("a number"));
    let last = last.min(bytes.len() - 1);
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\n{tag}Content-Range: bytes {first}-{last}/{}\r\n",
        bytes.len()
    );
    (head, bytes[first..=last].to_vec())
}
