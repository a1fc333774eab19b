//! Trial: opens a folder of files and uses it, within bounds of time and memory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::Device;
use mpt_core::{Adapter, AttnMask, CausalLm, ParameterSource, Weights, WithAdapter};
use tempfile::TempDir;

use crate::allocations::peak_of;
use crate::sound;

/// Memory limit beyond the size of the files, in bytes.
const CONSTANT: usize = 64 << 20;

/// Time limit, generous for a busy machine.
const LONGEST: Duration = Duration::from_secs(20);

/// Temporary folder of files.
pub(crate) struct Folder {
    dir: TempDir,
    bytes: usize,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder"), bytes: 0 }
    }

    /// A folder with the configuration of `sound::config`.
    pub(crate) fn model() -> Self {
        Self::new().with("config.json", sound::config().to_json())
    }

    pub(crate) fn with(mut self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.path(name), bytes.as_ref()).expect("room for a small file");
        self.bytes += bytes.as_ref().len();
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Opens the folder as a model, reads every tensor and runs two tokens; the error is the message.
    pub(crate) fn open(&self) -> Result<(), String> {
        self.bounded(|| used(self.dir.path()))
    }

    /// [`Folder::open`] for a file of the folder.
    pub(crate) fn open_file(&self, name: &str) -> Result<(), String> {
        self.bounded(|| used(&self.path(name)))
    }

    /// Opens the folder as an adapter of `sound::config`, and runs two tokens with it.
    pub(crate) fn open_adapter(&self) -> Result<(), String> {
        let config = sound::config();
        let base = mpt_core::Params::init(&config, 1, &Device::Cpu).expect("a small model");
        self.bounded(|| {
            let adapter = Adapter::open(self.dir.path(), &config)?;
            run(&CausalLm::new(&config, &WithAdapter { base: &base, adapter: &adapter })?)
        })
    }

    /// Asserts that the folder is refused by a message with all of `parts`.
    pub(crate) fn refused(&self, parts: &[&str]) {
        assert_names(self.open(), parts);
    }

    fn bounded(&self, call: impl FnOnce() -> mpt_core::Result<()>) -> Result<(), String> {
        let start = Instant::now();
        let (result, peak) = peak_of(call);
        assert!(peak <= self.bytes + CONSTANT, "{peak} bytes of memory for files of {} bytes", self.bytes);
        assert!(start.elapsed() < LONGEST, "{:?} for files of {} bytes", start.elapsed(), self.bytes);
        let message = result.map_err(|error| error.to_string());
        if let Err(message) = &message {
            assert!(message.len() < 2000, "a message of {} bytes", message.len());
        }
        message
    }
}

/// Asserts that an error's message has all of `parts`.
pub(crate) fn assert_names(result: Result<(), String>, parts: &[&str]) {
    let message = result.expect_err(&format!("nothing was refused that names {parts:?}"));
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

fn used(path: &Path) -> mpt_core::Result<()> {
    let weights = Weights::open(path)?;
    for tensor in weights.tensors() {
        match weights.tensor(&tensor.name, None) {
            Ok(stored) => drop(stored.to_tensor(&Device::Cpu)?),
            Err(error) => drop(error.to_string()), // a dtype that no weights have, of a tensor that no model needs
        }
    }
    run(&CausalLm::new(weights.config(), &weights as &dyn ParameterSource)?)
}

/// Runs two tokens.
pub(crate) fn run(model: &CausalLm) -> mpt_core::Result<()> {
    let last = model.config().vocab_size as u32 - 1;
    let hidden = model.hidden(&[[0, last]], &AttnMask::causal(1, 2))?;
    model.logits(&hidden).map(drop)
}
