//! Opening a model: a folder with `config.json` and weights in safetensors or `.bin`, or one GGUF file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{FileTensor, MappedFile};
use super::gguf::{self, Metadata};
use super::limits::MOST_TENSORS;
use super::{index, nf4, not_a_model, pickle, prefix, safetensors, tied};
use crate::config::MptConfig;
use crate::dtype::Precision;
use crate::dtype::WeightDtype;
use crate::error::damaged;
use crate::error::{Error, Result};
use crate::params::{Module, ParamId};
use crate::quoted::quoted;
use crate::storage::StoredTensor;

/// A model, opened: its configuration, and its tensors mapped into memory. Cloning shares the maps.
#[derive(Clone)]
pub struct Weights {
    path: PathBuf,
    config: MptConfig,
    files: Arc<[MappedFile]>,
    /// File and place in it of every tensor, under checkpoint names.
    tensors: Arc<BTreeMap<String, (usize, usize)>>,
    /// Parts of tensors in NF4.
    nf4: Arc<BTreeMap<String, nf4::Parts>>,
    metadata: Option<Arc<Metadata>>,
    /// The form that matrices are rounded to when they are handed out.
    pub(crate) round_to: WeightDtype,
    /// How the factors of a model made of these are rounded.
    pub(crate) precision: Precision,
}

/// What a weights file says of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its checkpoint name.
    pub name: String,
    /// Its dtype as the file spells it.
    pub dtype: String,
    /// Its shape, a linear as `[out, in]`.
    pub shape: Vec<usize>,
    /// Bytes in the file.
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
    /// Opens a model folder or a GGUF file, and checks every header in it and the names of its tensors.
    ///
    /// # Errors
    /// The configuration's errors; [`Error::NotAModel`] and [`Error::NoWeights`]; [`Error::WeightsFile`] for a damaged or
    /// hostile file, and for a head that is tied to the embedding and differs from it;
    /// [`Error::MissingTensor`] and [`Error::UnexpectedTensor`] where configuration and weights disagree.
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
        for path in weight_files(dir)? {
            let file = open_file(&path)?;
            tensors += file.tensors.len();
            if tensors > MOST_TENSORS {
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
        metadata: Option<Arc<Metadata>>,
    ) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            for (place, tensor) in file.tensors.iter().enumerate() {
                if tensors.insert(tensor.name.clone(), (number, place)).is_some() {
                    let found = format!("tensor `{}` stands in two files", tensor.name);
                    return Err(damaged(&file.path, found, "each tensor once"));
                }
            }
        }
        let nf4 = nf4::collect(&mut files, &mut tensors)?;
        let round_to = WeightDtype::F32;
        Ok(Self {
            path: path.to_owned(),
            config,
            files: files.into(),
            tensors: tensors.into(),
            nf4: nf4.into(),
            metadata,
            round_to,
            precision: Precision::F32,
        })
    }

    /// Every tensor of the configuration is there, and no other that would change the model.
    fn check_names(&self) -> Result<()> {
        let mut names = self.config.parameters().map(|(id, _)| id.to_string());
        if let Some(name) = names.find(|name| !self.tensors.contains_key(name)) {
            return Err(self.missing(name));
        }
        let expected = self.config.parameter_shapes(); // no more than there are tensors
        let is_known = |name: &str| expected.contains_key(name) || is_bystander(name, &self.config);
        match self.tensors.keys().find(|name| !is_known(name)) {
            Some(name) => Err(Error::UnexpectedTensor {
                path: self.path.clone(),
                name: name.clone(),
                instead: "set the key that it belongs to (such as `no_bias`, `qk_ln`, `n_layers`)",
            }),
            None => Ok(()),
        }
    }

    fn missing(&self, name: String) -> Error {
        if let Some(file) = self.index().and_then(|index| index::file_of(&index, &name)) {
            let found = format!("no tensor `{}`, which the index says it holds", quoted(&name));
            let expected = "the files of one download; fetch the model again";
            return Error::NotFetched { path: self.path.join(file), found, expected };
        }
        if self.passed_over().is_some() {
            let found = format!("no tensor `{}`", quoted(&name));
            let expected = "all tensors, since one file is used before an index of others beside it; remove which of the \
                            two is not the model's";
            return damaged(&self.files[0].path, found, expected);
        }
        if name != head() {
            return Error::MissingTensor { path: self.path.clone(), name };
        }
        let expected = "the head of an untied model; set `tie_word_embeddings` to true in config.json if the model \
                        shares its embedding";
        damaged(&self.path, "no tensor `lm_head.weight`, and `tie_word_embeddings` is false", expected)
    }

    /// A tied head that the files hold all the same is the embedding.
    fn check_tied_head(&self) -> Result<()> {
        if !self.config.tie_word_embeddings || !self.tensors.contains_key(&head()) {
            return Ok(());
        }
        let embedding = self.as_stored(&ParamId::weight(Module::Wte).to_string())?;
        tied::check_head(&self.path, &self.as_stored(&head())?, &embedding)
    }

    /// The index that names the files, where they are not one.
    fn index(&self) -> Option<PathBuf> {
        let first = &self.files.first()?.path;
        let of_kind = |single: &&'static str| {
            Path::new(single).extension() == first.extension() && !first.ends_with(single)
        };
        SINGLE.into_iter().find(of_kind).map(|single| self.path.join(index_of(single)))
    }

    /// The index beside a single file that was read instead, if there is one: nothing of what it names is used.
    pub fn passed_over(&self) -> Option<PathBuf> {
        let first = &self.files.first()?.path;
        let single = SINGLE.iter().find(|single| first.ends_with(single))?;
        Some(self.path.join(index_of(single))).filter(|index| index.is_file())
    }

    /// The form of the model's matrices, where all have the same.
    pub fn matrix_format(&self) -> Option<WeightDtype> {
        let mut formats =
            self.tensors.values().map(|&at| self.entry(at)).filter(|entry| entry.shape.len() > 1);
        let first = formats.next()?.format;
        if formats.all(|entry| entry.format == first) { first } else { None }
    }

    /// The configuration.
    pub fn config(&self) -> &MptConfig {
        &self.config
    }

    /// The folder, or the GGUF file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata of a GGUF file.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_deref()
    }

    /// The weights files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// All tensors in the order of names.
    pub fn tensors(&self) -> Vec<TensorInfo> {
        let info = |(name, &at): (&String, &(usize, usize))| {
            let FileTensor { dtype, shape, range, .. } = self.entry(at);
            let bytes = self.nf4.get(name).map_or(range.len(), |parts| parts.bytes);
            TensorInfo { name: name.clone(), dtype: dtype.clone(), shape: shape.clone(), bytes }
        };
        self.tensors.iter().map(info).collect()
    }

    /// One tensor as it is stored.
    pub(crate) fn as_stored(&self, name: &str) -> Result<StoredTensor> {
        let (_, entry, format) = self.place(name)?;
        let at = self.tensors[name];
        Ok(match self.nf4.get(name) {
            Some(parts) => StoredTensor::owned(parts.join(&self.files, at), format, &entry.shape),
            None => StoredTensor::mapped(&self.files[at.0].map, entry.range.clone(), format, &entry.shape),
        })
    }

    /// File, place and form of a tensor as it is stored.
    pub(crate) fn place(&self, name: &str) -> Result<(&Path, &FileTensor, WeightDtype)> {
        let missing = || Error::MissingTensor { path: self.path.clone(), name: name.to_owned() };
        let at = *self.tensors.get(name).ok_or_else(missing)?;
        let (path, entry) = (&self.files[at.0].path, self.entry(at));
        let format = entry.format.ok_or_else(|| Error::TensorDtype {
            path: path.clone(),
            name: name.to_owned(),
            actual: entry.dtype.clone(),
            expected: "F32, F16 or BF16",
        })?;
        Ok((path, entry, format))
    }

    fn entry(&self, (file, place): (usize, usize)) -> &FileTensor {
        &self.files[file].tensors[place]
    }
}

/// Tensors that other programs leave in a checkpoint and that change nothing: buffers, and a head that is tied.
fn is_bystander(name: &str, config: &MptConfig) -> bool {
    name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == head())
}

/// The name of the head.
fn head() -> String {
    ParamId::weight(Module::LmHead).to_string()
}

fn open_file(path: &Path) -> Result<MappedFile> {
    match path.extension() {
        Some(extension) if extension == "bin" => pickle::open(path),
        _ => safetensors::open(path),
    }
}

/// Tensors of a file beside a model, such as an adapter.
pub(crate) fn open_tensors(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let file = open_file(path)?;
    let stored = |tensor: &FileTensor| {
        let format = tensor.format.ok_or_else(|| Error::TensorDtype {
            path: path.to_owned(),
            name: tensor.name.clone(),
            actual: tensor.dtype.clone(),
            expected: "F32, F16 or BF16",
        })?;
        let stored = StoredTensor::mapped(&file.map, tensor.range.clone(), format, &tensor.shape);
        Ok((tensor.name.clone(), stored))
    };
    file.tensors.iter().map(stored).collect()
}

/// The weights of a folder where one file has them all.
const SINGLE: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The name of the index of the files that a model has instead of a single one.
fn index_of(single: &str) -> String {
    format!("{single}.index.json")
}

/// The weights files of a folder, in the order of their names; safetensors go before `.bin`.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    for single in SINGLE {
        let (single, index) = (dir.join(single), dir.join(index_of(single)));
        if single.is_file() {
            return Ok(vec![single]);
        }
        if index.is_file() {
            return index::files(dir, &index);
        }
    }
    Err(Error::NoWeights { path: dir.to_owned(), hint: hint(dir) })
}

/// What a folder without weights has instead.
fn hint(dir: &Path) -> String {
    let gguf = std::fs::read_dir(dir).ok().into_iter().flatten().flatten().map(|entry| entry.path());
    match gguf.filter(|path| path.extension().is_some_and(|extension| extension == "gguf")).min() {
        Some(path) => format!("; did you mean the file {}?", path.display()),
        None => String::new(),
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
            let stored = weights.stored(name, None).unwrap();
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
