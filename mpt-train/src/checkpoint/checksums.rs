//! `training/files.json` of a checkpoint: length and XXH3 of every other file, verified at resume.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use crate::error::{Error, Result};

const FILE: &str = "training/files.json";

/// Length and hash of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checksum {
    bytes: u64,
    /// 128 bits, hexadecimal.
    xxh3: String,
}

/// Writes the checksums of all files of the checkpoint in `dir`.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn write(dir: &Path) -> Result<()> {
    let mut checksums = BTreeMap::new();
    for folder in ["", "training/"] {
        let folder_path = dir.join(folder);
        for entry in fs::read_dir(&folder_path).map_err(Error::io(&folder_path, "listing"))? {
            let path = entry.map_err(Error::io(&folder_path, "listing"))?.path();
            if path.is_file() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let checksum = checksum(&path).map_err(Error::io(&path, "reading"))?;
                checksums.insert(format!("{folder}{name}"), checksum);
            }
        }
    }
    let path = dir.join(FILE);
    let text = serde_json::to_string_pretty(&checksums).expect("string keys") + "\n";
    fs::write(&path, text).map_err(Error::io(&path, "writing"))
}

/// Verifies every file of the checkpoint in `dir`.
///
/// # Errors
/// [`Error::Checkpoint`] naming the first missing or damaged file; `files.json` itself is one of them.
pub(crate) fn check(dir: &Path) -> Result<()> {
    let path = dir.join(FILE);
    let text = fs::read_to_string(&path).map_err(|error| Error::unread(&path, error))?;
    let checksums: BTreeMap<String, Checksum> =
        serde_json::from_str(&text).map_err(|error| Error::unparsed(&path, error))?;
    for (name, expected) in &checksums {
        let path = dir.join(name);
        let found = checksum(&path).map_err(|error| Error::unread(&path, error))?;
        if found.bytes != expected.bytes {
            let problem = format!("has {} bytes, and {} were written", found.bytes, expected.bytes);
            return Err(Error::checkpoint(&path, problem));
        }
        if found != *expected {
            return Err(Error::checkpoint(&path, "is damaged: its bytes are not those that were written"));
        }
    }
    Ok(())
}

fn checksum(path: &Path) -> std::io::Result<Checksum> {
    let (mut file, mut hash) = (File::open(path)?, Xxh3Default::new());
    let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Checksum { bytes, xxh3: format!("{:032x}", hash.digest128()) }),
            count => {
                hash.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}
