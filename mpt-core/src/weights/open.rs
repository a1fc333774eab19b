//! Opening a model folder: `config.json` beside `model.safetensors`, whole or in shards with an index.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::mmap;
use crate::config::MptConfig;
use crate::error::{Error, Result};

/// A model folder, opened: its configuration, and its tensors mapped into memory.
#[derive(Clone)]
pub struct Weights {
    dir: PathBuf,
    config: MptConfig,
    files: Arc<Vec<MappedFile>>,
    /// The file of every tensor.
    names: Arc<BTreeMap<String, usize>>,
}

struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

/// What a weights file says of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its dtype as the file spells it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Bytes in the file.
    pub bytes: usize,
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights")
            .field("dir", &self.dir)
            .field("tensors", &self.names.len())
            .finish_non_exhaustive()
    }
}

impl Weights {
    /// Opens a folder and checks every header in it.
    ///
    /// # Errors
    /// The configuration's errors, [`Error::NoWeights`], [`Error::WeightsFile`] for a damaged or hostile file.
    pub fn open(dir: &Path) -> Result<Self> {
        let config = MptConfig::from_file(&dir.join("config.json"))?;
        let paths = weight_files(dir)?;
        let mut files = Vec::with_capacity(paths.len());
        let mut names = BTreeMap::new();
        for path in paths {
            let map = mmap::map(&path)?;
            let tensors = parse(&path, &map)?;
            for name in tensors.names() {
                if names.insert(name.to_owned(), files.len()).is_some() {
                    let found = format!("tensor `{name}` stands in two files");
                    return Err(Error::WeightsFile { path, found, expected: "each tensor once" });
                }
            }
            files.push(MappedFile { path, map });
        }
        Ok(Self { dir: dir.to_owned(), config, files: files.into(), names: names.into() })
    }

    /// The configuration.
    pub fn config(&self) -> &MptConfig {
        &self.config
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The weights files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// All tensors in the order of names.
    ///
    /// # Errors
    /// [`Error::WeightsFile`] when a file changed since it was opened.
    pub fn tensors(&self) -> Result<Vec<TensorInfo>> {
        let info = |(name, &file): (&String, &usize)| {
            let view = self.view(name, file)?;
            let (dtype, shape, bytes) =
                (format!("{:?}", view.dtype()), view.shape().to_vec(), view.data().len());
            Ok(TensorInfo { name: name.clone(), dtype, shape, bytes })
        };
        self.names.iter().map(info).collect()
    }

    /// One tensor, copied in the dtype asked for. `expected` is the shape it must have.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`], [`Error::TensorDtype`].
    pub fn tensor(
        &self,
        name: &str,
        expected: Option<&[usize]>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let Some(&file) = self.names.get(name) else {
            return Err(Error::MissingTensor { path: self.dir.clone(), name: name.to_owned() });
        };
        let path = &self.files[file].path;
        let view = self.view(name, file)?;
        let actual = view.shape();
        if let Some(expected) = expected.filter(|&expected| expected != actual) {
            let (actual, expected) = (actual.to_vec(), expected.to_vec());
            return Err(Error::TensorShape { path: path.clone(), name: name.to_owned(), actual, expected });
        }
        let stored = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                let actual = format!("{other:?}");
                return Err(Error::TensorDtype { path: path.clone(), name: name.to_owned(), actual });
            }
        };
        Ok(Tensor::from_raw_buffer(view.data(), stored, actual, device)?.to_dtype(dtype)?)
    }

    /// Gives the tensors to a model under construction.
    ///
    /// # Errors
    /// None yet: tensors are read as the model asks for them.
    pub fn var_builder(&self, dtype: DType, device: &Device) -> Result<VarBuilder<'static>> {
        Ok(VarBuilder::from_backend(Box::new(self.clone()), dtype, device.clone()))
    }

    fn view(&self, name: &str, file: usize) -> Result<safetensors::tensor::TensorView<'_>> {
        let MappedFile { path, map } = &self.files[file];
        parse(path, map)?.tensor(name).map_err(|error| damaged(path, error))
    }
}

impl SimpleBackend for Weights {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _init: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.tensor(name, Some(shape.dims()), dtype, device).map_err(candle_core::Error::wrap)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.tensor(name, None, dtype, device).map_err(candle_core::Error::wrap)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }
}

fn parse<'a>(path: &Path, map: &'a Mmap) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(map).map_err(|error| damaged(path, error))
}

fn damaged(path: &Path, error: safetensors::SafeTensorError) -> Error {
    let expected = "a safetensors file; fetch or write it again";
    Error::WeightsFile { path: path.to_owned(), found: error.to_string(), expected }
}

/// The weights files of a folder, in the order of their names.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let single = dir.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = dir.join("model.safetensors.index.json");
    if index.is_file() {
        return index_files(dir, &index);
    }
    let has_bin =
        ["pytorch_model.bin", "pytorch_model.bin.index.json"].iter().any(|name| dir.join(name).is_file());
    let hint = if has_bin {
        "; `pytorch_model*.bin` is not supported yet: save the model as safetensors"
    } else {
        ""
    };
    Err(Error::NoWeights { path: dir.to_owned(), hint })
}

fn index_files(dir: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(index).map_err(Error::io(index, "reading"))?;
    let Index { weight_map } = serde_json::from_str(&text)
        .map_err(|source| Error::ConfigSyntax { path: index.to_owned(), source })?;
    let files: std::collections::BTreeSet<String> = weight_map.into_values().collect();
    let inside =
        |file: &String| Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if let Some(file) = files.iter().find(|file| !inside(file)) {
        let found = format!("the file name `{file}`");
        return Err(Error::WeightsFile {
            path: index.to_owned(),
            found,
            expected: "names inside the folder",
        });
    }
    Ok(files.iter().map(|file| dir.join(file)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, tiny_model};

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
        assert_eq!(weights.tensors().unwrap().len(), params.iter().count());
        for (name, var) in params.iter() {
            assert_close(&weights.tensor(name, None, DType::F32, &Device::Cpu).unwrap(), var, 0.0);
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
        std::fs::write(dir.path().join("pytorch_model.bin"), b"").unwrap();
        let message = Weights::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("not supported yet"), "{message}");
    }
}
