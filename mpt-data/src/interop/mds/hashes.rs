//! Hashes of files in an index: those of Python's `hashlib` and `xxhash` of fixed length.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use blake2::{Blake2b512, Blake2s256};
use sha2::digest::Digest;
use sha3::{Sha3_224, Sha3_256, Sha3_384, Sha3_512};
use xxhash_rust::{xxh3::Xxh3, xxh32::Xxh32, xxh64::Xxh64};

use crate::error::{Error, Result};
use crate::hash::hex;

/// Hash algorithm.
#[derive(Debug, Clone, Copy)]
pub struct HashAlgorithm {
    name: &'static str,
    start: fn() -> Box<dyn RunningHash>,
}

/// All algorithms, by their names in Python.
const HASHES: [HashAlgorithm; 17] = [
    HashAlgorithm { name: "blake2b", start: || digest::<Blake2b512>() },
    HashAlgorithm { name: "blake2s", start: || digest::<Blake2s256>() },
    HashAlgorithm { name: "md5", start: || digest::<md5::Md5>() },
    HashAlgorithm { name: "sha1", start: || digest::<sha1::Sha1>() },
    HashAlgorithm { name: "sha224", start: || digest::<sha2::Sha224>() },
    HashAlgorithm { name: "sha256", start: || digest::<sha2::Sha256>() },
    HashAlgorithm { name: "sha384", start: || digest::<sha2::Sha384>() },
    HashAlgorithm { name: "sha3_224", start: || digest::<Sha3_224>() },
    HashAlgorithm { name: "sha3_256", start: || digest::<Sha3_256>() },
    HashAlgorithm { name: "sha3_384", start: || digest::<Sha3_384>() },
    HashAlgorithm { name: "sha3_512", start: || digest::<Sha3_512>() },
    HashAlgorithm { name: "sha512", start: || digest::<sha2::Sha512>() },
    HashAlgorithm { name: "xxh128", start: || Box::new(Xxh128(Xxh3::new())) },
    HashAlgorithm { name: "xxh32", start: || Box::new(Xxh32::new(0)) },
    HashAlgorithm { name: "xxh3_128", start: || Box::new(Xxh128(Xxh3::new())) },
    HashAlgorithm { name: "xxh3_64", start: || Box::new(Xxh3::new()) },
    HashAlgorithm { name: "xxh64", start: || Box::new(Xxh64::new(0)) },
];

impl HashAlgorithm {
    /// Algorithm of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|hash| hash.name == name)
    }

    /// All algorithms.
    pub fn all() -> impl Iterator<Item = Self> {
        HASHES.into_iter()
    }

    /// Name.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Hash of some bytes, in hex.
    pub fn of(self, bytes: &[u8]) -> String {
        let mut running = (self.start)();
        running.update(bytes);
        running.hex()
    }
}

/// Hash being computed.
trait RunningHash: Send {
    fn update(&mut self, bytes: &[u8]);
    fn hex(self: Box<Self>) -> String;
}

struct DigestHash<D>(D);

fn digest<D: Digest + Send + 'static>() -> Box<dyn RunningHash> {
    Box::new(DigestHash(D::new()))
}

impl<D: Digest + Send> RunningHash for DigestHash<D> {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn hex(self: Box<Self>) -> String {
        hex(&self.0.finalize())
    }
}

/// 128-bit XXH3.
struct Xxh128(Xxh3);

impl RunningHash for Xxh128 {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn hex(self: Box<Self>) -> String {
        format!("{:032x}", self.0.digest128())
    }
}

impl RunningHash for Xxh3 {
    fn update(&mut self, bytes: &[u8]) {
        Self::update(self, bytes);
    }

    fn hex(self: Box<Self>) -> String {
        format!("{:016x}", self.digest())
    }
}

impl RunningHash for Xxh64 {
    fn update(&mut self, bytes: &[u8]) {
        Self::update(self, bytes);
    }

    fn hex(self: Box<Self>) -> String {
        format!("{:016x}", self.digest())
    }
}

impl RunningHash for Xxh32 {
    fn update(&mut self, bytes: &[u8]) {
        Self::update(self, bytes);
    }

    fn hex(self: Box<Self>) -> String {
        format!("{:08x}", self.digest())
    }
}

/// Hashes being computed, with their expected values.
pub(super) struct HashCheck {
    running: Vec<(HashAlgorithm, Box<dyn RunningHash>, String)>,
}

impl HashCheck {
    /// Hashes of an entry of the index. An unknown algorithm is refused by name.
    pub(super) fn new(path: &Path, hashes: &[(String, String)]) -> Result<Self> {
        let running = hashes.iter().map(|(name, expected)| {
            let hash = HashAlgorithm::from_name(name).ok_or_else(|| unknown(path, name))?;
            Ok((hash, (hash.start)(), expected.to_ascii_lowercase()))
        });
        Ok(Self { running: running.collect::<Result<_>>()? })
    }

    /// No hashes.
    pub(super) fn nothing() -> Self {
        Self { running: Vec::new() }
    }

    /// Updates all hashes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.running.iter_mut().for_each(|(_, running, _)| running.update(bytes));
    }

    /// Compares the hashes with the expected ones; `what` names the hashed bytes in errors.
    pub(super) fn check(self, path: &Path, what: &str) -> Result<()> {
        for (hash, running, expected) in self.running {
            let found = running.hex();
            if found != expected {
                let name = hash.name;
                return Err(Error::input(
                    path,
                    format!(
                        "{what}{name} is {found}, but the index says {expected}; the file was changed, fetch it again"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Reads a whole file, and compares its hashes.
    pub(super) fn check_file(mut self, path: &Path) -> Result<()> {
        if self.running.is_empty() {
            return Ok(());
        }
        let mut file = File::open(path).map_err(Error::io(path, "opening"))?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer).map_err(Error::io(path, "reading"))? {
                0 => return self.check(path, "its "),
                count => self.update(&buffer[..count]),
            }
        }
    }
}

fn unknown(path: &Path, name: &str) -> Error {
    let known: Vec<_> = HashAlgorithm::all().map(HashAlgorithm::name).collect();
    let known = known.join(", ");
    Error::input(
        path,
        format!(
            "the index gives a hash `{name}`, which cannot be checked here; known are {known}; without checking hashes the file can be read"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // hashlib of Python 3.11 and xxhash 3 on b"abc".
        for (name, start) in [
            ("md5", "900150983cd24fb0d6963f7d28e17f72"),
            ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            ("sha224", "23097d223405d8228642a477bda255b3"),
            ("sha384", "cb00753f45a35e8bb5a03d699ac65007"),
            ("sha512", "ddaf35a193617abacc417349ae204131"),
            ("sha3_256", "3a985da74fe225b2045c172d6bd390bd"),
            ("blake2b", "ba80a53f981c4d0d6a2797b69f12f6e9"),
            ("blake2s", "508c5e8c327c14e2e1a72ba34eeb452f"),
            ("xxh32", "32d153ff"),
            ("xxh64", "44bc2cf5ad770999"),
            ("xxh3_64", "78af5f94892f3950"),
            ("xxh128", "06b05ab6733a618578af5f94892f3950"),
        ] {
            let found = HashAlgorithm::from_name(name).expect("known").of(b"abc");
            assert!(found.starts_with(start), "{name}: {found}");
        }
    }

    #[test]
    fn unknown_hashes_are_refused_by_name() {
        let hashes = [("sm3".to_owned(), "00".to_owned())];
        let error = HashCheck::new(Path::new("a.mds"), &hashes).err().expect("unknown").to_string();
        assert!(error.starts_with("a.mds: the index gives a hash `sm3`, which"), "{error}");
    }
}
