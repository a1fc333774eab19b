//! `training/files.json` of a checkpoint: length and XXH3 of every other file, so that damage is found at resume.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use crate::error::{Error, Result};

const SUMS: &str = "training/files.json";

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    bytes: u64,
    /// 128 bits, hexadecimal.
    xxh3: String,
}

/// Writes the sums of what lies in the folder `dir`.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn write(dir: &Path) -> Result<()> {
    let mut sums = BTreeMap::new();
    for folder in ["", "training/"] {
        let place = dir.join(folder);
        for entry in fs::read_dir(&place).map_err(Error::io(&place, "listing"))? {
            let path = entry.map_err(Error::io(&place, "listing"))?.path();
            if path.is_file() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let sum = sum(&path).map_err(Error::io(&path, "reading"))?;
                sums.insert(format!("{folder}{name}"), sum);
            }
        }
    }
    let path = dir.join(SUMS);
    let text = serde_json::to_string_pretty(&sums).expect("string keys") + "\n";
    fs::write(&path, text).map_err(Error::io(&path, "writing"))
}

/// Reads every file that the sums name.
///
/// # Errors
/// [`Error::Checkpoint`] naming the first that is absent or another than was written, or the sums themselves.
pub(crate) fn check(dir: &Path) -> Result<()> {
    let path = dir.join(SUMS);
    let text = fs::read_to_string(&path).map_err(|error| Error::unread(&path, error))?;
    let sums: BTreeMap<String, Sum> =
        serde_json::from_str(&text).map_err(|error| Error::unparsed(&path, error))?;
    for (name, expected) in &sums {
        let path = dir.join(name);
        let found = sum(&path).map_err(|error| Error::unread(&path, error))?;
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

fn sum(path: &Path) -> std::io::Result<Sum> {
    let (mut file, mut hash) = (File::open(path)?, Xxh3Default::new());
    let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Sum { bytes, xxh3: format!("{:032x}", hash.digest128()) }),
            count => {
                hash.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}
