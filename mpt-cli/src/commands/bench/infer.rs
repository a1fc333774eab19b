//! `mpt bench infer`: throughput of prefill and of decoding.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{Device, Tensor};
use mpt_core::{
    Batch, CausalLm, Drawn, KvDtype, KvPool, LoraWeights, Module, ModuleId, MptConfig, ParamId, Parameter,
    ParameterSource, Precision, Result as CoreResult, SeqId, WeightDtype, expect_memory,
};
use serde_json::json;

use super::measurement::{BenchModel, Measurement, median, table};
use crate::dtype_args::{kv_dtype, weight_dtype};
use crate::exit::CliError;
use crate::machine;
use crate::model_args::ModelArgs;
use crate::settings::Context;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Model folder, GGUF file, or run folder of `mpt train`
    #[arg(long, value_name = "PATH", required_unless_present = "config")]
    model: Option<PathBuf>,
    /// A config.json, used with random weights
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    config: Option<PathBuf>,
    /// Form of the weights
    #[arg(long, value_name = "DTYPE", default_value = "f32", value_parser = weight_dtype())]
    dtype: WeightDtype,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    prompt: u32,
    /// Tokens generated
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    r#gen: u32,
    /// Sequences at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1 << 10))]
    batch: u32,
    /// Form of the cached keys and values
    #[arg(long, value_name = "DTYPE", default_value = "f32", value_parser = kv_dtype())]
    kv_dtype: KvDtype,
    /// Repetitions, after a short one that is not timed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,
}

/// Prefill chunk in tokens, as in generation.
const PREFILL_TOKENS: usize = 512;

pub(super) fn run(args: &Args, ctx: &mut Context) -> Result<(), CliError> {
    let began = Instant::now();
    let loaded = load(args, ctx)?;
    let load_seconds = began.elapsed().as_secs_f64();
    let kv_dtype = args.kv_dtype;
    let (prompt, new, batch) = (args.prompt as usize, args.r#gen as usize, args.batch as usize);
    run_once(&loaded.lm, kv_dtype, batch, prompt.min(32), 1)?;
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for _ in 0..args.reps {
        let [prefill_seconds, decode_seconds] = run_once(&loaded.lm, kv_dtype, batch, prompt, new)?;
        prefill.push((batch * prompt) as f64 / prefill_seconds);
        decode.push((batch * new) as f64 / decode_seconds);
    }
    let peak_rss_bytes = machine::peak_rss_bytes(); // before the machine itself is measured
    let LoadedModel { lm, bench_model, decode_bytes } = loaded;
    let config = lm.config().clone();
    drop(lm);
    let (peak, bandwidth) = (machine::measure_peak_flops()?, machine::measure_read_bandwidth());
    let step_bytes = decode_bytes + batch as u64 * KvPool::bytes(&config, prompt + new / 2, kv_dtype);
    let decode_share = median(&decode) / batch as f64 * step_bytes as f64 / bandwidth;
    let prefill_share = median(&prefill) * prefill_flops(&config, prompt) / peak;
    let test = |name: &str, tokens: usize| match batch {
        1 => format!("{name}{tokens}"),
        _ => format!("{name}{tokens} x {batch}"),
    };
    let peak_text = machine::format_flops(peak);
    let rows = [
        Measurement {
            test: test("pp", prompt),
            rates: prefill.clone(),
            utilization: prefill_share,
            peak_text,
        },
        Measurement {
            test: test("tg", new),
            rates: decode.clone(),
            utilization: decode_share,
            peak_text: format!("{:.1} GB/s, reading", bandwidth / 1e9),
        },
    ];
    for line in table(&bench_model, &rows) {
        ctx.out.text(line)?;
    }
    let reps: Vec<_> = prefill
        .iter()
        .zip(&decode)
        .map(|(p, d)| json!({ "prefill_tokens_per_s": p, "decode_tokens_per_s": d }))
        .collect();
    ctx.out.json(&json!({
        "prefill_tokens_per_s": median(&prefill), "decode_tokens_per_s": median(&decode), "load_seconds": load_seconds,
        "peak_rss_bytes": peak_rss_bytes, "reps": reps, "weight_bytes": bench_model.bytes,
        "prefill_flops_utilisation": prefill_share, "decode_bandwidth_utilisation": decode_share,
        "machine_flops_per_s": peak, "machine_read_bytes_per_s": bandwidth,
    }))
}

/// Loaded model.
struct LoadedModel {
    lm: CausalLm,
    bench_model: BenchModel,
    /// Bytes of weights that a decoding step reads.
    decode_bytes: u64,
}

fn load(args: &Args, ctx: &Context) -> Result<LoadedModel, CliError> {
    let dtype = args.dtype;
    match (&args.model, &args.config) {
        (Some(model), _) => {
            let weights =
                ModelArgs { model: model.clone(), dtype }.weights(ctx)?.multiplied_as(dtype.precision());
            load_counted(weights.config(), &weights, model_name(model))
        }
        (None, Some(path)) => {
            let config = MptConfig::from_file(path)?;
            expect_memory(2 * largest_parameter_bytes(&config))?;
            let random_init = Drawn::new(&config, ctx.seed.unwrap_or(17), dtype);
            load_counted(&config, &random_init, model_name(path))
        }
        (None, None) => unreachable!("a model or a config is required"),
    }
}

/// Bytes of the largest parameter in f32, the dtype of its random init.
fn largest_parameter_bytes(config: &MptConfig) -> u64 {
    let values =
        |shape: Vec<usize>| shape.iter().fold(1, |product: u64, &n| product.saturating_mul(n as u64));
    let largest = config.parameters().map(|(_, shape)| values(shape)).max().unwrap_or(0);
    largest.saturating_mul(size_of::<f32>() as u64).min(u64::MAX / 2)
}

fn load_counted(
    config: &MptConfig,
    source: &dyn ParameterSource,
    name: String,
) -> Result<LoadedModel, CliError> {
    let is_head = config.tie_word_embeddings;
    let (bytes, tables, form) = Default::default();
    let source = CountingSource { source, is_head, bytes, tables, form };
    let lm = CausalLm::new(config, &source)?;
    let (bytes, tables) = (source.bytes.get(), source.tables.get());
    let form = source.form.take();
    let bench_model =
        BenchModel { name: format!("{name} {form}"), bytes, parameters: config.num_parameters() };
    Ok(LoadedModel { lm, bench_model, decode_bytes: bytes - tables })
}

/// Parameter source that counts the bytes it hands out.
struct CountingSource<'a> {
    source: &'a dyn ParameterSource,
    /// Whether the head is tied to the embedding.
    is_head: bool,
    bytes: Cell<u64>,
    /// Bytes of embedding tables, of which a step reads single rows.
    tables: Cell<u64>,
    /// Dtype of the last matrix.
    form: Cell<String>,
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
            self.form.set(stored.dtype().to_string());
        }
        let is_table = match id.module.module {
            Module::Wte => !self.is_head, // the head is read whole
            Module::Wpe => true,
            _ => false,
        };
        if is_table {
            self.tables.set(self.tables.get() + bytes);
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

/// Runs one repetition. Returns the seconds of prefill, `prompt` tokens per sequence, and of `new` decoding steps.
fn run_once(
    lm: &CausalLm,
    kv_dtype: KvDtype,
    batch: usize,
    prompt: usize,
    new: usize,
) -> Result<[f64; 2], CliError> {
    let id = |row: usize, at: usize| ((at + 1000 * row) * 7919 % lm.config().vocab_size) as u32;
    let rows: Vec<Vec<u32>> = (0..batch).map(|row| (0..prompt).map(|at| id(row, at)).collect()).collect();
    let mut pool = KvPool::new(lm.config(), batch * KvPool::whole_pages(prompt + new), kv_dtype)?;
    let sequences: Vec<SeqId> = (0..batch).map(|_| pool.add()).collect();
    let began = Instant::now();
    let mut next = Vec::new();
    for from in (0..prompt).step_by(PREFILL_TOKENS) {
        let chunk = from..prompt.min(from + PREFILL_TOKENS);
        next = greedy_step(lm, &mut pool, sequences.iter().zip(rows.iter().map(|row| &row[chunk.clone()])))?;
    }
    let prefill_seconds = began.elapsed().as_secs_f64();
    let began = Instant::now();
    for _ in 0..new {
        next = greedy_step(lm, &mut pool, sequences.iter().zip(next.chunks(1)))?;
    }
    Ok([prefill_seconds, began.elapsed().as_secs_f64()])
}

/// Runs new tokens of all sequences. Returns the most probable next id of each.
fn greedy_step<'a>(
    lm: &CausalLm,
    pool: &mut KvPool,
    new_tokens: impl Iterator<Item = (&'a SeqId, &'a [u32])>,
) -> Result<Vec<u32>, CliError> {
    let mut batch = Batch::new();
    for (&sequence, tokens) in new_tokens {
        batch.push(sequence, tokens)?;
    }
    let last = Tensor::new(batch.last_token_indices(), &Device::Cpu)?;
    let hidden = lm.forward(&batch, pool)?.index_select(&last, 0)?;
    let logits = lm.logits(&hidden)?.flatten_all()?.to_vec1::<f32>()?;
    let best = |row: &[f32]| {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.map_or(0, |(id, _)| id as u32)
    };
    Ok(logits.chunks(lm.config().vocab_size).map(best).collect())
}

/// FLOPs per prompt token at a prompt of `prompt` tokens: two per weight of the blocks, and attention over half the
/// prompt, which a causal mask leaves. The head runs for the last token only.
fn prefill_flops(config: &MptConfig, prompt: usize) -> f64 {
    let embeddings = config.parameters().filter(|(id, shape)| shape.len() > 1 && id.layer().is_none());
    let outside: usize = embeddings.map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let attention = 2 * 2 * config.n_layers * config.q_width() * prompt / 2;
    2.0 * (config.num_parameters() - outside as u64) as f64 + attention as f64
}
