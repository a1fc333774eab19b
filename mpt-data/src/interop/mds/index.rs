//! Index of a dataset, `index.json`: its shards and their columns, raw in, checked out.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::codec::Codec;
use super::encoding::Encoding;
use crate::blob::open_regular;
use crate::error::{Error, Result};

/// Name of an index in its folder.
pub(crate) const INDEX: &str = "index.json";

/// Dataset: its folder and its shards, in order.
#[derive(Debug, Clone)]
pub struct MdsDataset {
    dir: PathBuf,
    shards: Vec<MdsShard>,
}

/// Shard, as described by the index.
#[derive(Debug, Clone)]
pub struct MdsShard {
    /// Columns, in order.
    pub columns: Vec<ColumnSpec>,
    /// Compression, if any.
    pub codec: Option<Codec>,
    /// Samples.
    pub samples: u64,
    /// Uncompressed file.
    pub raw: FileInfo,
    /// Compressed file.
    pub zip: Option<FileInfo>,
}

/// Column of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Name.
    pub name: String,
    /// Encoding of the values.
    pub encoding: Encoding,
    /// Bytes of each value; `None` where each sample holds the size.
    pub size: Option<u64>,
}

/// File, as described by the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Path in the dataset's folder, never out of it.
    pub path: PathBuf,
    /// Length in bytes.
    pub bytes: u64,
    /// Names and hex digits of the hashes.
    pub hashes: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct RawIndex {
    version: u64,
    shards: Vec<RawShard>,
}

#[derive(Deserialize)]
struct RawShard {
    version: u64,
    format: String,
    #[serde(default)]
    column_names: Vec<String>,
    #[serde(default)]
    column_encodings: Vec<String>,
    #[serde(default)]
    column_sizes: Vec<Option<u64>>,
    compression: Option<String>,
    samples: u64,
    raw_data: RawFile,
    zip_data: Option<RawFile>,
}

#[derive(Deserialize)]
struct RawFile {
    basename: String,
    bytes: u64,
    #[serde(default)]
    hashes: serde_json::Map<String, serde_json::Value>,
}

impl MdsDataset {
    /// Reads the index of a folder.
    ///
    /// # Errors
    /// [`Error::BrokenInput`] naming the shard and the field; [`Error::Io`] where there is no index.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(INDEX);
        let mut text = Vec::new();
        let read = open_regular(&path).and_then(|mut file| file.read_to_end(&mut text));
        read.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::input(dir, "there is no index.json here; expected the folder of an MDS dataset")
            }
            _ => Error::io(&path, "opening")(error),
        })?;
        Self::parse(dir, &text)
    }

    /// Reads the text of the index of a folder.
    ///
    /// # Errors
    /// As [`MdsDataset::open`].
    pub fn parse(dir: &Path, text: &[u8]) -> Result<Self> {
        let path = dir.join(INDEX);
        let raw: RawIndex = serde_json::from_slice(text).map_err(|error| {
            Error::unread(&path, format!("is no index of an MDS dataset ({error})"), error)
        })?;
        if raw.version != 2 {
            return Err(Error::input(&path, format!("`version` is {}, expected 2", raw.version)));
        }
        let check = |(at, shard)| {
            MdsShard::check(shard).map_err(|problem| Error::input(&path, format!("shard {at}: {problem}")))
        };
        let shards = raw.shards.into_iter().enumerate().map(check).collect::<Result<Vec<_>>>()?;
        each_once(&shards).map_err(|problem| Error::input(&path, problem))?;
        Ok(Self { dir: dir.to_owned(), shards })
    }

    /// Folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Datasets by the first folder of the shards' paths, in the order of the shards; `None` for shards in the dataset's own
    /// folder.
    pub(crate) fn by_folder(self) -> Vec<(Option<String>, Self)> {
        let mut parts: Vec<(Option<String>, Self)> = Vec::new();
        for shard in self.shards {
            let folder = shard.folder().components().next();
            let folder = folder.map(|part| part.as_os_str().to_string_lossy().into_owned());
            match parts.iter_mut().find(|(known, _)| *known == folder) {
                Some((_, part)) => part.shards.push(shard),
                None => parts.push((folder, Self { dir: self.dir.clone(), shards: vec![shard] })),
            }
        }
        parts
    }

    /// Shards, in order.
    pub fn shards(&self) -> &[MdsShard] {
        &self.shards
    }
}

/// Refuses a shard that is listed twice.
fn each_once(shards: &[MdsShard]) -> Result<(), String> {
    let mut seen = HashMap::new();
    for (at, shard) in shards.iter().enumerate() {
        if let Some(first) = seen.insert(&shard.raw.path, at) {
            let name = shard.raw.path.display();
            return Err(format!(
                "shard {at}: is {name}, as shard {first} is; a shard counts once, so take one of them out of the index"
            ));
        }
    }
    Ok(())
}

impl MdsShard {
    /// Folder of the file, relative to the dataset's.
    pub fn folder(&self) -> &Path {
        self.raw.path.parent().unwrap_or(Path::new(""))
    }

    /// Index of the column of this name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    fn check(raw: RawShard) -> Result<Self, String> {
        if (raw.version, raw.format.as_str()) != (2, "mds") {
            return Err(format!("is `{}` version {}, expected `mds` version 2", raw.format, raw.version));
        }
        let codec = raw.compression.filter(|name| !name.is_empty()).map(|name| name.parse()).transpose();
        let codec: Option<Codec> = codec.map_err(|problem: String| format!("`compression`: {problem}"))?;
        if codec.is_none() && raw.zip_data.is_some() {
            return Err("has `zip_data`, but no `compression`".into());
        }
        let (samples, bytes) = (raw.samples, raw.raw_data.bytes);
        if bytes > u64::from(u32::MAX) {
            return Err(format!("`raw_data.bytes` is {bytes}, but the offsets of a shard have 32 bits"));
        }
        // Each sample has an offset, and at least one byte.
        if samples > bytes / 5 {
            return Err(format!("`samples` is {samples}, which {bytes} bytes cannot hold"));
        }
        Ok(Self {
            columns: columns(&raw.column_names, &raw.column_encodings, &raw.column_sizes)?,
            codec,
            samples: raw.samples,
            raw: file("raw_data", raw.raw_data)?,
            zip: raw.zip_data.map(|zip| file("zip_data", zip)).transpose()?,
        })
    }
}

fn columns(names: &[String], encodings: &[String], sizes: &[Option<u64>]) -> Result<Vec<ColumnSpec>, String> {
    if names.is_empty() || names.len() != encodings.len() || names.len() != sizes.len() {
        let counts = (names.len(), encodings.len(), sizes.len());
        return Err(format!(
            "has {} `column_names`, {} `column_encodings` and {} `column_sizes`; expected as many of each, and one at least",
            counts.0, counts.1, counts.2
        ));
    }
    let column = |((name, encoding), size): ((&String, &String), &Option<u64>)| {
        let encoding: Encoding = encoding.parse().map_err(|problem| format!("column `{name}`: {problem}"))?;
        // A size of 0 means a variable size.
        let size = size.filter(|&size| size > 0);
        match (size, encoding.size()) {
            (Some(found), Some(expected)) if found != expected => Err(format!(
                "column `{name}`: its size is {found}, but values of `{encoding}` have {expected} bytes"
            )),
            _ => Ok(ColumnSpec { name: name.clone(), encoding, size }),
        }
    };
    names.iter().zip(encodings).zip(sizes).map(column).collect()
}

fn file(field: &str, raw: RawFile) -> Result<FileInfo, String> {
    let path = PathBuf::from(&raw.basename);
    let is_name = |part| matches!(part, Component::Normal(_));
    if raw.basename.is_empty() || !path.components().all(is_name) {
        return Err(format!("`{field}.basename` is {:?}, which leads out of the folder", raw.basename));
    }
    let hash = |(name, digits): (String, serde_json::Value)| match digits {
        serde_json::Value::String(digits) => Ok((name, digits)),
        other => Err(format!("`{field}.hashes.{name}` is {other}, expected hex digits")),
    };
    let hashes = raw.hashes.into_iter().map(hash).collect::<Result<_, _>>()?;
    Ok(FileInfo { path, bytes: raw.bytes, hashes })
}
