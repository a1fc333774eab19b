//! Model under measurement: from a file, or a configuration with random weights. Counts the bytes of its weights.

use std::cell::Cell;
use std::path::Path;

use mpt_core::params::{Module, ModuleId, ParamId};
use mpt_core::{
    CausalLm, LoraWeights, MptConfig, Parameter, ParameterSource, Precision, RandomInit,
    Result as CoreResult, WeightDtype, check_memory,
};

use super::measurement::BenchModel;
use crate::exit::CliError;
use crate::model_args::ModelArgs;
use crate::settings::Context;

/// Loaded model.
pub(super) struct LoadedModel {
    /// The model.
    pub(super) lm: CausalLm,
    /// Its name and size.
    pub(super) bench_model: BenchModel,
    /// Bytes of weights that a decoding step reads.
    pub(super) decode_bytes: u64,
}

impl LoadedModel {
    /// Loads `model`, or `config` with random weights from `seed`. One of them must be given.
    pub(super) fn open(
        model: Option<&Path>,
        config: Option<&Path>,
        dtype: WeightDtype,
        seed: u64,
        ctx: &Context,
    ) -> Result<Self, CliError> {
        match (model, config) {
            (Some(model), _) => {
                let args = ModelArgs { model: model.to_owned(), dtype };
                let weights = args.weights(ctx)?.with_precision(dtype.precision());
                Self::load(weights.config(), &weights, &model_name(model))
            }
            (None, Some(path)) => {
                let config = MptConfig::from_file(path)?;
                check_memory(2 * largest_parameter_bytes(&config))?;
                Self::load(&config, &RandomInit::new(&config, seed, dtype), &model_name(path))
            }
            (None, None) => unreachable!("a model or a config is required"),
        }
    }

    fn load(config: &MptConfig, source: &dyn ParameterSource, name: &str) -> Result<Self, CliError> {
        let source = CountingSource::new(source, config);
        let lm = CausalLm::new(config, &source)?;
        let CountingSource { bytes, table_bytes, dtype, .. } = source;
        let name = format!("{name} {}", dtype.into_inner());
        let bench_model = BenchModel { name, bytes: bytes.get(), parameters: config.num_parameters() };
        Ok(Self { lm, bench_model, decode_bytes: bytes.get() - table_bytes.get() })
    }
}

/// Bytes of the largest parameter in f32, the dtype of its random init.
fn largest_parameter_bytes(config: &MptConfig) -> u64 {
    let values =
        |shape: Vec<usize>| shape.iter().fold(1, |product: u64, &n| product.saturating_mul(n as u64));
    let largest = config.parameters().map(|(_, shape)| values(shape)).max().unwrap_or(0);
    largest.saturating_mul(size_of::<f32>() as u64).min(u64::MAX / 2)
}

/// Parameter source that counts the bytes it hands out.
struct CountingSource<'a> {
    source: &'a dyn ParameterSource,
    /// Whether the head is tied to the embedding.
    is_head: bool,
    bytes: Cell<u64>,
    /// Bytes of embedding tables, of which a step reads single rows.
    table_bytes: Cell<u64>,
    /// Dtype of the last matrix.
    dtype: Cell<String>,
}

impl<'a> CountingSource<'a> {
    fn new(source: &'a dyn ParameterSource, config: &MptConfig) -> Self {
        let (bytes, table_bytes, dtype) = Default::default();
        Self { source, is_head: config.tie_word_embeddings, bytes, table_bytes, dtype }
    }
}

impl ParameterSource for CountingSource<'_> {
    fn get(&self, id: ParamId, shape: &[usize]) -> CoreResult<Parameter> {
        let parameter = self.source.get(id, shape)?;
        let bytes = match &parameter {
            Parameter::Tensor(tensor) => 4 * tensor.elem_count() as u64,
            Parameter::Stored(stored) => stored.num_bytes() as u64,
        };
        self.bytes.set(self.bytes.get() + bytes);
        if let (Parameter::Stored(stored), [_, _]) = (&parameter, shape) {
            self.dtype.set(stored.dtype().to_string());
        }
        let is_table = match id.module.module {
            Module::Wte => !self.is_head, // the head is read whole
            Module::Wpe => true,
            _ => false,
        };
        if is_table {
            self.table_bytes.set(self.table_bytes.get() + bytes);
        }
        Ok(parameter)
    }

    fn precision(&self) -> Precision {
        self.source.precision()
    }

    fn lora(&self, module: ModuleId) -> Option<LoraWeights> {
        self.source.lora(module)
    }
}

/// Name of a model's folder or file; for a `config.json`, that of its folder.
pub(super) fn model_name(path: &Path) -> String {
    let folder = path.parent().and_then(Path::file_name);
    let name = if path.ends_with("config.json") { folder } else { path.file_stem() };
    name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}
