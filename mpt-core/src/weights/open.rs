//! Opened model: a folder with `config.json` and weights in safetensors or `.bin`, or one GGUF file.
//!
//! Tensors stay in the mapped files; conversion to another dtype is in `loading`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{FileTensor, MappedFile, TensorIndex};
use super::gguf::{self, GgufMetadata};
use super::limits::MAX_TENSORS;
use super::{folder, nf4, not_a_model, prefix};
use crate::config::MptConfig;
use crate::dtype::{Precision, WeightDtype};
use crate::error::{Error, Result, damaged};
use crate::storage::StoredTensor;

/// Opened model: its configuration and memory-mapped tensors. Cloning shares the maps.
#[derive(Clone)]
pub struct Weights {
    path: PathBuf,
    config: MptConfig,
    files: Arc<[MappedFile]>,
    /// Tensors by checkpoint name.
    tensors: Arc<BTreeMap<String, TensorIndex>>,
    /// Quantization states of the NF4 tensors, by checkpoint name.
    quant_states: Arc<BTreeMap<String, nf4::QuantState>>,
    metadata: Option<Arc<GgufMetadata>>,
    /// Dtype that matrices are converted to when loaded.
    pub(crate) requested_dtype: WeightDtype,
    /// Precision of the matmuls of a model with these parameters.
    pub(crate) precision: Precision,
}

/// Header of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Checkpoint name.
    pub name: String,
    /// Dtype as the file spells it.
    pub dtype: String,
    /// Shape; a linear is `[out, in]`.
    pub shape: Vec<usize>,
    /// Size in the file, in bytes.
    pub bytes: usize,
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights")
            .field("path", &self.path)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

impl Weights {
    /// Opens a model folder or a GGUF file, and checks all headers and tensor names.
    ///
    /// # Errors
    /// The configuration's errors; [`Error::NotAModel`] and [`Error::NoWeights`]; [`Error::WeightsFile`] for a damaged or
    /// hostile file, and for a tied head that differs from the embedding; [`Error::MissingTensor`] and
    /// [`Error::UnexpectedTensor`] when configuration and weights disagree.
    pub fn open(path: &Path) -> Result<Self> {
        not_a_model::refuse(path)?;
        let weights = if path.is_file() { Self::open_gguf(path)? } else { Self::open_folder(path)? };
        weights.check_names()?;
        weights.check_tied_head()?;
        Ok(weights)
    }

    fn open_folder(dir: &Path) -> Result<Self> {
        let config = MptConfig::from_file(&dir.join("config.json"))?;
        let (mut files, mut tensors) = (Vec::new(), 0);
        for path in folder::weights_files(dir)? {
            let file = folder::open_file(&path)?;
            tensors += file.tensors.len();
            if tensors > MAX_TENSORS {
                let found = format!("{tensors} tensors in the files up to this one");
                return Err(damaged(&path, found, "at most 65536 of them"));
            }
            files.push(file);
        }
        prefix::strip(&mut files);
        Self::new(dir, config, files, None)
    }

    fn open_gguf(path: &Path) -> Result<Self> {
        let gguf::GgufFile { mut file, metadata } = gguf::open(path)?;
        for tensor in &mut file.tensors {
            tensor.name = gguf::from_gguf(&tensor.name).ok_or_else(|| Error::UnexpectedTensor {
                path: path.to_owned(),
                name: tensor.name.clone(),
                instead: "expected a GGUF file of the architecture `mpt`",
            })?;
        }
        let config = gguf::read_config(path, &metadata, &file.tensors)?;
        Self::new(path, config, vec![file], Some(Arc::new(metadata)))
    }

    fn new(
        path: &Path,
        config: MptConfig,
        mut files: Vec<MappedFile>,
        metadata: Option<Arc<GgufMetadata>>,
    ) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            for (index, tensor) in file.tensors.iter().enumerate() {
                if tensors.insert(tensor.name.clone(), (number, index)).is_some() {
                    let found = format!("tensor `{}` stands in two files", tensor.name);
                    return Err(damaged(&file.path, found, "each tensor once"));
                }
            }
        }
        let quant_states = nf4::collect(&mut files, &mut tensors)?;
        Ok(Self {
            path: path.to_owned(),
            config,
            files: files.into(),
            tensors: tensors.into(),
            quant_states: quant_states.into(),
            metadata,
            requested_dtype: WeightDtype::F32,
            precision: Precision::F32,
        })
    }

    /// Stored dtype of the matrices, when all have the same.
    pub fn matrix_dtype(&self) -> Option<WeightDtype> {
        let tensors = self.tensors.values().map(|&index| self.file_tensor(index));
        let mut matrices = tensors.filter(|tensor| tensor.shape.len() > 1);
        let first = matrices.next()?.dtype;
        if matrices.all(|tensor| tensor.dtype == first) { first } else { None }
    }

    /// Configuration.
    pub fn config(&self) -> &MptConfig {
        &self.config
    }

    /// Folder, or GGUF file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Metadata of a GGUF file; `None` for a folder.
    pub fn metadata(&self) -> Option<&GgufMetadata> {
        self.metadata.as_deref()
    }

    /// Weights files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Tensors in the order of checkpoint names.
    pub fn tensors(&self) -> Vec<TensorInfo> {
        let info = |(name, &index): (&String, &TensorIndex)| {
            let FileTensor { dtype_name, shape, range, .. } = self.file_tensor(index);
            let bytes = self.quant_states.get(name).map_or(range.len(), |state| state.bytes);
            TensorInfo { name: name.clone(), dtype: dtype_name.clone(), shape: shape.clone(), bytes }
        };
        self.tensors.iter().map(info).collect()
    }

    /// Checkpoint names of the tensors, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Tensor in its stored dtype. NF4 is assembled in memory; other dtypes stay in the map.
    pub(crate) fn stored_tensor(&self, name: &str) -> Result<StoredTensor> {
        let (_, tensor, dtype) = self.locate(name)?;
        let index = self.tensors[name];
        Ok(match self.quant_states.get(name) {
            Some(state) => StoredTensor::owned(state.blocks(&self.files, index), dtype, &tensor.shape),
            None => {
                let map = &self.files[index.0].map;
                StoredTensor::mapped(map, tensor.range.clone(), dtype, &tensor.shape)
            }
        })
    }

    /// File, header and stored dtype of a tensor.
    pub(crate) fn locate(&self, name: &str) -> Result<(&Path, &FileTensor, WeightDtype)> {
        let missing = || Error::MissingTensor { path: self.path.clone(), name: name.to_owned() };
        let index = *self.tensors.get(name).ok_or_else(missing)?;
        let (path, tensor) = (&self.files[index.0].path, self.file_tensor(index));
        Ok((path, tensor, tensor.weight_dtype(path)?))
    }

    fn file_tensor(&self, (file, index): TensorIndex) -> &FileTensor {
        &self.files[file].tensors[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, tiny_model};
    use candle_core::Device;

    fn saved(dir: &Path) -> crate::Params {
        let (config, params) = tiny_model(1);
        std::fs::write(dir.join("config.json"), config.to_json()).unwrap();
        params.save(&dir.join("model.safetensors")).unwrap();
        params
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let params = saved(dir.path());
        let weights = Weights::open(dir.path()).unwrap();
        assert_eq!(weights.tensors().len(), params.iter().count());
        for (name, var) in params.iter() {
            let stored = weights.tensor(name, None).unwrap();
            assert_close(&stored.to_tensor(&Device::Cpu).unwrap(), var, 0.0);
        }
    }

    #[test]
    fn damage_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path());
        let path = dir.path().join("model.safetensors");
        let sound = std::fs::read(&path).unwrap();
        for length in [0, 7, 8, 100, sound.len() - 1] {
            std::fs::write(&path, &sound[..length]).unwrap();
            let message = Weights::open(dir.path()).unwrap_err().to_string();
            assert!(message.contains("model.safetensors"), "{message}");
        }
        let mut huge_header = sound.clone();
        huge_header[..8].fill(0xff);
        std::fs::write(&path, huge_header).unwrap();
        assert!(Weights::open(dir.path()).is_err());
    }

    #[test]
    fn weights_and_configuration_must_describe_one_model() {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path());
        let config = dir.path().join("config.json");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("\"n_layers\": 2", "\"n_layers\": 3")).unwrap();
        let message = Weights::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("`transformer.blocks.2.") && message.contains("is missing"), "{message}");
        std::fs::write(&config, text.replace("\"n_layers\": 2", "\"n_layers\": 1")).unwrap();
        let message = Weights::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("`transformer.blocks.1.") && message.contains("n_layers"), "{message}");
    }

    #[test]
    fn an_index_cannot_name_files_outside_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path());
        std::fs::rename(dir.path().join("model.safetensors"), dir.path().join("a.safetensors")).unwrap();
        let index = dir.path().join("model.safetensors.index.json");
        for (file, sound) in [("a.safetensors", true), ("../a.safetensors", false), ("/etc/passwd", false)] {
            std::fs::write(&index, format!(r#"{{"weight_map": {{"transformer.wte.weight": "{file}"}}}}"#))
                .unwrap();
            assert_eq!(Weights::open(dir.path()).is_ok(), sound, "{file}");
        }
    }

    #[test]
    fn missing_weights_say_what_was_expected() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), tiny_model(1).0.to_json()).unwrap();
        let message = Weights::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("no weights here"), "{message}");
        std::fs::write(dir.path().join("model.gguf"), b"").unwrap();
        let message = Weights::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("did you mean the file") && message.contains("model.gguf"), "{message}");
    }
}
