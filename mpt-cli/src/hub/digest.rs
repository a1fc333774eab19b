//! Digests of files on the hub: SHA-256 of large files, and git's SHA-1 of a blob for small ones.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base16ct::lower::encode_string;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::hub::name::is_hex;

/// Size of a read.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// Expected digest of a file in lower-case hexadecimal digits. It also names the file in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Digest {
    /// SHA-256 of the bytes.
    Sha256(String),
    /// SHA-1 of `blob <size>\0` and the bytes.
    GitSha1(String),
}

impl Digest {
    /// SHA-256 that a server sent; `None` if it is malformed.
    pub(crate) fn sha256(hex: &str) -> Option<Self> {
        is_hex(hex, 64).then(|| Self::Sha256(hex.to_owned()))
    }

    /// Name of a git blob that a server sent; `None` if it is malformed.
    pub(crate) fn git_sha1(hex: &str) -> Option<Self> {
        is_hex(hex, 40).then(|| Self::GitSha1(hex.to_owned()))
    }

    /// Hexadecimal digits.
    pub(crate) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitSha1(hex) => hex,
        }
    }

    /// Hasher of the same kind for a file of `size` bytes.
    pub(crate) fn hasher(&self, size: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::GitSha1(_) => {
                let mut sha1 = Sha1::new();
                sha1.update(format!("blob {size}\0"));
                Hasher::GitSha1(sha1)
            }
        }
    }

    /// Whether the file at `path` has this digest; `None` if `keep_going` returned false before its end.
    pub(crate) fn matches(
        &self,
        path: &Path,
        size: u64,
        keep_going: impl Fn() -> bool,
    ) -> io::Result<Option<bool>> {
        let mut hasher = self.hasher(size);
        let is_complete = hasher.read(File::open(path)?, keep_going)?;
        Ok(is_complete.then(|| hasher.finish() == *self))
    }
}

/// Incremental hash.
#[derive(Debug, Clone)]
pub(crate) enum Hasher {
    /// See [`Digest::Sha256`].
    Sha256(Sha256),
    /// See [`Digest::GitSha1`].
    GitSha1(Sha1),
}

impl Hasher {
    /// Adds bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sha256) => sha256.update(bytes),
            Self::GitSha1(sha1) => sha1.update(bytes),
        }
    }

    /// Adds the rest of `from`. Returns false if `keep_going` returned false before its end.
    pub(crate) fn read(&mut self, mut from: impl Read, keep_going: impl Fn() -> bool) -> io::Result<bool> {
        let mut buffer = vec![0; CHUNK_BYTES];
        while keep_going() {
            match from.read(&mut buffer)? {
                0 => return Ok(true),
                n => self.update(&buffer[..n]),
            }
        }
        Ok(false)
    }

    /// Digest of the bytes so far.
    pub(crate) fn finish(&self) -> Digest {
        match self.clone() {
            Self::Sha256(sha256) => Digest::Sha256(encode_string(&sha256.finalize())),
            Self::GitSha1(sha1) => Digest::GitSha1(encode_string(&sha1.finalize())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(kind: &Digest, bytes: &[u8]) -> String {
        let mut hasher = kind.hasher(bytes.len() as u64);
        hasher.update(bytes);
        hasher.finish().hex().to_owned()
    }

    #[test]
    fn both_hashes_are_the_published_ones() {
        let sha256 = Digest::sha256(&"0".repeat(64)).expect("a hash");
        assert_eq!(
            digest(&sha256, b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let git = Digest::git_sha1(&"0".repeat(40)).expect("a hash");
        assert_eq!(digest(&git, b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    }

    #[test]
    fn only_hexadecimal_digits_make_a_hash() {
        assert_eq!(Digest::sha256("../../x"), None);
        assert_eq!(Digest::git_sha1(&"g".repeat(40)), None);
    }
}
