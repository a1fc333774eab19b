//! Content hashes as text, and SHA-256 of files.

use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::blob::Blob;
use crate::error::{Error, Result};

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of some bytes, in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of a file or object in hex, and its length; `read` is told of every piece read.
pub(crate) fn sha256_file(path: &Path, mut read: impl FnMut(u64) -> Result<()>) -> Result<(String, u64)> {
    let mut file = Blob::open(path)?.into_read();
    let (mut hash, mut buffer, mut bytes) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer).map_err(Error::io(path, "reading"))? {
            0 => return Ok((hex(&hash.finalize()), bytes)),
            count => {
                hash.update(&buffer[..count]);
                bytes += count as u64;
                read(count as u64)?;
            }
        }
    }
}
