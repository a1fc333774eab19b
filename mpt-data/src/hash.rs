//! Content hashes as text.

pub(crate) use base16ct::lower::encode_string as hex;
use sha2::{Digest, Sha256};

/// The SHA-256 of some bytes, in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
