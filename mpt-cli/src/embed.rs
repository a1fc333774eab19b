//! Document embeddings for semantic deduplication: the mean of a model's last hidden states over the tokens.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use candle_core::DType;
use mpt_core::AttnMask;
use mpt_data::{Embedder, PrepareRun};
use mpt_infer::Pipeline;
use mpt_tokenize::Tokenizer;
use sha2::{Digest, Sha256};

use crate::exit::{CliError, ExitStatus};

/// Embedding model with the fingerprint of its files.
pub(crate) struct ModelEmbedder {
    pipeline: Pipeline,
    fingerprint: String,
}

impl ModelEmbedder {
    /// Opens the model that the deduplication of `run` names, if any. Its tokenizer must be that of the run.
    pub(crate) fn for_run(run: &PrepareRun, tokenizer: &Tokenizer) -> Result<Option<Self>, CliError> {
        let Some(settings) = run.dedup.semdedup() else { return Ok(None) };
        let path = run.folder().join(&settings.model);
        let pipeline = Pipeline::open(&path)?;
        if pipeline.tokenizer()?.fingerprint() != tokenizer.fingerprint() {
            let message = format!("{}: the model has another tokenizer than the run", path.display());
            return Err(CliError::usage(message)
                .help("name the model's tokenizer.json as `tokenizer`, or another model"));
        }
        let fingerprint = fingerprint(pipeline.weights().path())?;
        Ok(Some(Self { pipeline, fingerprint }))
    }
}

impl Embedder for ModelEmbedder {
    fn fingerprint(&self) -> String {
        format!("mean-hidden {}", self.fingerprint)
    }

    fn embed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Box<dyn Error + Send + Sync>> {
        let model = self.pipeline.model();
        let hidden = model.hidden(&[tokens], &AttnMask::causal(1, tokens.len()))?;
        Ok(hidden.to_dtype(DType::F32)?.mean(1)?.squeeze(0)?.to_vec1()?)
    }
}

/// SHA-256 of the files that define a model: a single file, or the configuration and weights of a folder in order of
/// name.
fn fingerprint(path: &Path) -> Result<String, CliError> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    for file in model_files(path).map_err(|error| CliError::read(ExitStatus::Data, path, error))? {
        let failed = |error| CliError::read(ExitStatus::Data, &file, error);
        let mut input = File::open(&file).map_err(failed)?;
        loop {
            match input.read(&mut buffer).map_err(failed)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
    }
    Ok(base16ct::lower::encode_string(&hash.finalize()))
}

fn model_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let is_model_file = |path: &Path| {
        let is_config = path.file_name().is_some_and(|name| name == "config.json");
        let ending = path.extension().and_then(|ending| ending.to_str());
        path.is_file() && (is_config || matches!(ending, Some("safetensors" | "bin")))
    };
    let entries = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.retain(|path| is_model_file(path));
    files.sort();
    Ok(files)
}
