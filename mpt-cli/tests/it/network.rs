//! Object stores that do not answer, or have nothing at an address.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::run;

#[test]
fn a_dead_network_ends_with_4_and_a_missing_object_with_3() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let dead = listener.local_addr().expect("bound");
    drop(listener);
    let ended = run(&["data", "verify", &format!("http://{dead}/data")]);
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    assert!(ended.stderr.contains(&dead.to_string()), "{}", ended.stderr);

    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let empty = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ =
                stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let ended = run(&["data", "verify", &format!("http://{empty}/data")]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
}
