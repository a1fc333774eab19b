//! Writer of a dataset with the bytes of the Python package: each shard when the next one begins, and last the index.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::codec::Codec;
use super::encoding::Encoding;
use super::hashes::HashAlgorithm;
use super::index::INDEX;
use super::json;
use super::value::Value;
use crate::durable;
use crate::error::{Error, Result};

/// Default size limit of a shard.
const SIZE_LIMIT: u64 = 1 << 26;

/// Settings of a writer.
#[derive(Debug, Clone)]
pub struct MdsOptions {
    /// Compression of shards, if any.
    pub codec: Option<Codec>,
    /// Hashes in the index, in the order of their names.
    pub hashes: Vec<HashAlgorithm>,
    /// Bytes of a shard before the next one begins, below 4 GiB; `None` for one shard.
    pub size_limit: Option<u64>,
}

impl Default for MdsOptions {
    fn default() -> Self {
        Self { codec: None, hashes: Vec::new(), size_limit: Some(SIZE_LIMIT) }
    }
}

/// Writer of samples into a folder, with one shard in memory.
pub struct MdsWriter {
    dir: PathBuf,
    columns: Vec<(String, Encoding)>,
    /// Index in the values of `push` of each column; columns are in the order of their names.
    order: Vec<usize>,
    options: MdsOptions,
    config: Json,
    config_text: String,
    ends: Vec<u64>,
    data: Vec<u8>,
    shards: Vec<Json>,
}

impl MdsWriter {
    /// Creates a dataset in a folder.
    ///
    /// # Errors
    /// [`Error::Conversion`] for impossible settings.
    pub fn create(dir: &Path, columns: &[(String, Encoding)], mut options: MdsOptions) -> Result<Self> {
        options.hashes.sort_by_key(|hash| hash.name());
        options.hashes.dedup_by_key(|hash| hash.name());
        if options.size_limit.is_some_and(|limit| limit > u64::from(u32::MAX)) {
            let problem = "offsets in a shard have 32 bits; expected less than 4 GiB".to_owned();
            return Err(Error::Conversion { option: "size-limit", problem });
        }
        durable::make_dir(dir)?;
        let mut order: Vec<_> = (0..columns.len()).collect();
        order.sort_by_key(|&at| &columns[at].0);
        let columns: Vec<_> = order.iter().map(|&at| columns[at].clone()).collect();
        let config = config(&columns, &options);
        let mut config_text = String::new();
        json::write(&config, &mut config_text);
        Ok(Self {
            dir: dir.to_owned(),
            columns,
            order,
            options,
            config,
            config_text,
            ends: Vec::new(),
            data: Vec::new(),
            shards: Vec::new(),
        })
    }

    /// Appends a sample: a value for each column, in the order of `create`.
    ///
    /// # Errors
    /// [`Error::BrokenInput`] for a value its column cannot hold, or a shard beyond 4 GiB.
    pub fn push(&mut self, values: &[Value]) -> Result<()> {
        assert_eq!(values.len(), self.columns.len(), "a value for each column");
        let from = self.data.len();
        self.encode(values).map_err(|problem| Error::input(&self.dir, problem))?;
        let size = (self.data.len() - from) as u64;
        let full = |limit: u64| limit < self.shard_bytes(from) + size + 4;
        if self.options.size_limit.is_some_and(full) {
            let sample = self.data.split_off(from);
            self.flush()?;
            self.data = sample;
        }
        self.ends.push(self.data.len() as u64);
        if self.shard_bytes(self.data.len()) > u64::from(u32::MAX) {
            return Err(Error::input(
                &self.dir,
                "a shard beyond 4 GiB cannot be written; set a smaller size limit",
            ));
        }
        Ok(())
    }

    /// Writes the last shard and the index, and returns the shards of the index, for [`merge_index`].
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn finish(mut self) -> Result<Vec<Json>> {
        if !self.ends.is_empty() {
            self.flush()?;
        }
        let index = json!({ "shards": self.shards, "version": 2 });
        write_json(&self.dir.join(INDEX), &index)?;
        Ok(self.shards)
    }

    /// Bytes of the shard with `data` bytes of samples.
    fn shard_bytes(&self, data: usize) -> u64 {
        8 + self.config_text.len() as u64 + 4 * self.ends.len() as u64 + data as u64
    }

    fn encode(&mut self, values: &[Value]) -> std::result::Result<(), String> {
        let variable = self.columns.iter().filter(|(_, encoding)| encoding.size().is_none()).count();
        let mut size_at = self.data.len();
        self.data.resize(size_at + 4 * variable, 0);
        for ((name, encoding), &at) in self.columns.iter().zip(&self.order) {
            let from = self.data.len();
            let wrong = |problem: String| format!("column `{name}`: {problem}");
            encoding.encode(&values[at], &mut self.data).map_err(wrong)?;
            if encoding.size().is_none() {
                let size = self.data.len() - from;
                let size = u32::try_from(size).map_err(|_| wrong(format!("{size} bytes are too many")))?;
                self.data[size_at..size_at + 4].copy_from_slice(&size.to_le_bytes());
                size_at += 4;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let samples = self.ends.len();
        let shard = self.take_shard();
        let name = format!("shard.{:05}.mds", self.shards.len());
        let raw = self.describe(&name, &shard);
        let zip = match self.options.codec {
            None => {
                durable::write_file(&self.dir.join(&name), &shard)?;
                Json::Null
            }
            Some(codec) => {
                let zip_name = format!("{name}.{}", codec.family.name());
                let path = self.dir.join(&zip_name);
                let zip = codec.compress(&shard).map_err(Error::io(&path, "compressing"))?;
                durable::write_file(&path, &zip)?;
                self.describe(&zip_name, &zip)
            }
        };
        let mut entry = self.config.clone();
        entry["raw_data"] = raw;
        entry["samples"] = json!(samples);
        entry["zip_data"] = zip;
        entry.as_object_mut().expect("the configuration is an object").sort_keys();
        self.shards.push(entry);
        Ok(())
    }

    /// Takes the bytes of the shard, and leaves an empty one.
    fn take_shard(&mut self) -> Vec<u8> {
        let (ends, data) = (std::mem::take(&mut self.ends), std::mem::take(&mut self.data));
        let first = 4 * (ends.len() + 2) + self.config_text.len();
        let mut shard = Vec::with_capacity(first + data.len());
        let number = |number: u64| u32::try_from(number).expect("shards are below 4 GiB").to_le_bytes();
        shard.extend(number(ends.len() as u64));
        shard.extend(number(first as u64));
        ends.iter().for_each(|end| shard.extend(number(first as u64 + end)));
        shard.extend(self.config_text.as_bytes());
        shard.extend(data);
        shard
    }

    fn describe(&self, name: &str, bytes: &[u8]) -> Json {
        let hashes = self.options.hashes.iter().map(|hash| (hash.name().to_owned(), json!(hash.of(bytes))));
        json!({ "basename": name, "bytes": bytes.len(), "hashes": Json::Object(hashes.collect()) })
    }
}

fn config(columns: &[(String, Encoding)], options: &MdsOptions) -> Json {
    let of = |f: fn(&(String, Encoding)) -> Json| columns.iter().map(f).collect::<Vec<_>>();
    json!({
        "column_encodings": of(|(_, encoding)| json!(encoding.to_string())),
        "column_names": of(|(name, _)| json!(name)),
        "column_sizes": of(|(_, encoding)| json!(encoding.size())),
        "compression": options.codec.map(|codec| codec.to_string()),
        "format": "mds",
        "hashes": options.hashes.iter().map(|hash| hash.name()).collect::<Vec<_>>(),
        "size_limit": options.size_limit,
        "version": 2,
    })
}

/// Writes the index of a folder of datasets, with the shards of all, in order.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn merge_index(dir: &Path, datasets: Vec<(String, Vec<Json>)>) -> Result<()> {
    let moved = datasets.into_iter().flat_map(|(folder, shards)| {
        shards.into_iter().map(move |mut shard| {
            for file in ["raw_data", "zip_data"] {
                if let Some(Json::String(name)) = shard[file].get_mut("basename") {
                    *name = format!("{folder}/{name}");
                }
            }
            shard
        })
    });
    let shards: Vec<_> = moved.collect();
    write_json(&dir.join(INDEX), &json!({ "version": 2, "shards": shards }))
}

fn write_json(path: &Path, value: &Json) -> Result<()> {
    let mut text = String::new();
    json::write(value, &mut text);
    durable::write_file(path, text.as_bytes())
}
