//! Where the numbers of reference implementations lie: the golden cases of this repository, and more of them beside the checkout.
//!
//! Tests of every crate include this file.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Variable that names the file in which tests that miss something beside the checkout are listed, for `cargo xtask test`.
const LIST: &str = "MPT_SKIPPED_TESTS";

/// A golden case of `mpt-core`; every clone has them.
#[allow(dead_code, reason = "not every crate compares models")]
pub(crate) fn golden(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mpt-core/tests/golden").join(name);
    assert!(dir.is_dir(), "{} is a part of the repository", dir.display());
    dir
}

/// A file or folder of `shared`, the folder beside the checkout, or `None`, saying so, where it is not there.
#[expect(clippy::print_stderr, reason = "a test that skips something says so")]
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent", path.display());
    if let Some(list) = std::env::var_os(LIST) {
        let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).expect("writable");
        list.write_all(format!("{}: {}\n", env!("CARGO_PKG_NAME"), test()).as_bytes()).expect("writable");
    }
    None
}

/// The test that is running.
fn test() -> String {
    let of_thread = || std::thread::current().name().unwrap_or("a test").to_owned();
    std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| of_thread())
}
