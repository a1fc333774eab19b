//! `mpt quantize`: quantization of a model, with the rounding error.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mpt_core::convert::ConvertedTensor;
use mpt_core::params::{ModuleId, ParamId};
use mpt_core::{ConvertOptions, ConvertedModel, WeightDtype, Weights};
use serde::Serialize;
use serde_json::json;

use crate::dtype_args::quantized_dtype;
use crate::exit::{CliError, ExitStatus};
use crate::export;
use crate::model_args;
use crate::progress::{Unit, format_amount};
use crate::settings::Context;
use crate::table;

/// Quantize a model: smaller files, less memory, faster decoding
///
/// The q types write a GGUF file that llama.cpp reads, with the bytes its own reference quantizers give; nf4 writes a folder
/// that transformers and bitsandbytes read. Every matrix gets the type that was asked for, the embedding too; llama.cpp's
/// mixes, such as Q4_K_M, give some of them more bits. Vectors stay f32. With nf4 only the linears of blocks are quantized,
/// as bitsandbytes does, and the rest keeps its form.
///
/// A matrix whose rows are no whole number of blocks (32, 64 for nf4, 256 for the k types) gets the next wider type that
/// fits: q8_0, else f16; with nf4 it keeps its form. Memory stays below 100 MB, with nf4 about the largest matrix.
///
/// Reported is the root mean square of what rounding changed over that of the values.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt quantize mpt-7b mpt-7b.Q4_K.gguf --type q4_k
  mpt quantize mpt-7b.gguf mpt-7b.Q8_0.gguf --type q8_0
  mpt quantize mpt-7b mpt-7b-nf4 --type nf4
  mpt verify mpt-7b.Q4_K.gguf --against mpt-7b")]
pub(crate) struct Args {
    /// Model folder, GGUF file, or run folder of `mpt train`
    input: PathBuf,
    /// What to write: a GGUF file, or a folder for nf4
    output: PathBuf,
    /// Form of the matrices
    #[arg(long = "type", value_name = "TYPE", value_parser = quantized_dtype())]
    dtype: WeightDtype,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let format = args.dtype;
    let weights = model_args::open(&args.input, ctx)?;
    let options = ConvertOptions { dtype: Some(format), ..ConvertOptions::default() };
    let converted = match args.dtype {
        WeightDtype::Nf4 => export::write_folder(&weights, &args.output, &options, "quantize", ctx)?,
        _ => export::write_gguf_file(&weights, &args.output, &options, "quantize", ctx)?,
    };
    let before = bytes_before(&weights);
    let all = TensorStats::of(converted.tensors.iter());
    let kinds = tensor_kinds(&converted);
    let size = |bytes| format_amount(Unit::Bytes, bytes);
    ctx.out.text(format_args!(
        "{}: {} of {}, {:.2} bits per weight, from {}",
        args.output.display(),
        size(converted.bytes),
        export::dtypes(&converted),
        all.bits_per_weight,
        size(before)
    ))?;
    ctx.out.table(&["tensors", "form", "weights", "size", "relative error"], &rows(&kinds, &all))?;
    let mut document = export::summary_json(&args.output, &converted);
    document["type"] = json!(format.name());
    document["bytes_before"] = json!(before);
    document["bytes_after"] = json!(converted.bytes);
    document["bits_per_weight"] = json!(all.bits_per_weight);
    document["error"] = json!({ "relative_rms": all.relative_rms, "kinds": kinds });
    ctx.out.json(&document)?;
    Ok(ExitStatus::Done)
}

/// Bytes of the model's tensors before quantization.
fn bytes_before(weights: &Weights) -> u64 {
    let expected = weights.config().parameter_shapes();
    let tensors = weights.tensors().into_iter().filter(|tensor| expected.contains_key(&tensor.name));
    tensors.map(|tensor| tensor.bytes as u64).sum()
}

/// Statistics of the matrices of one kind and dtype.
#[derive(Debug, Serialize)]
struct TensorKind {
    kind: String,
    dtype: &'static str,
    #[serde(flatten)]
    stats: TensorStats,
}

/// Size and rounding error of some tensors.
#[derive(Debug, Serialize)]
struct TensorStats {
    weights: u64,
    bytes: u64,
    bits_per_weight: f64,
    /// RMS of the error, relative to the RMS of the values, over matrices whose bytes changed.
    relative_rms: f64,
}

impl TensorStats {
    fn of<'a>(tensors: impl Iterator<Item = &'a ConvertedTensor> + Clone) -> Self {
        let matrices = tensors.clone().filter(|tensor| tensor.shape.len() > 1);
        let sum = |of: fn(&ConvertedTensor) -> f64| matrices.clone().map(of).sum::<f64>();
        let (weights, bytes) = tensors
            .clone()
            .fold((0, 0), |(weights, bytes), tensor| (weights + tensor.num_values(), bytes + tensor.bytes));
        let (squares, squared_error) =
            (sum(|tensor| tensor.squared_norm), sum(|tensor| tensor.squared_error));
        let relative_rms = if squares > 0.0 { (squared_error / squares).sqrt() } else { 0.0 };
        Self { weights, bytes, bits_per_weight: 8.0 * bytes as f64 / weights.max(1) as f64, relative_rms }
    }
}

/// Statistics of the matrices by module and dtype.
fn tensor_kinds(converted: &ConvertedModel) -> Vec<TensorKind> {
    let mut kinds: BTreeMap<_, Vec<&ConvertedTensor>> = BTreeMap::new();
    for tensor in converted.tensors.iter().filter(|tensor| tensor.shape.len() > 1) {
        kinds.entry((kind_name(&tensor.name), tensor.dtype.name())).or_default().push(tensor);
    }
    let kind = |((kind, dtype), tensors): ((&str, &'static str), Vec<&ConvertedTensor>)| TensorKind {
        kind: kind.to_owned(),
        dtype,
        stats: TensorStats::of(tensors.into_iter()),
    };
    kinds.into_iter().map(kind).collect()
}

/// Module of a tensor, without its layer.
fn kind_name(name: &str) -> &str {
    match name.parse::<ParamId>().map(|id| id.module) {
        Ok(ModuleId { layer: Some(_), module }) => module.name(),
        Ok(ModuleId { layer: None, module }) => module.short_name(),
        Err(_) => name,
    }
}

fn rows(kinds: &[TensorKind], all: &TensorStats) -> Vec<Vec<String>> {
    let row = |kind: &str, dtype: &str, stats: &TensorStats| {
        let size = format_amount(Unit::Bytes, stats.bytes);
        let error = format!("{:.2e}", stats.relative_rms);
        vec![kind.to_owned(), dtype.to_owned(), table::count(stats.weights), size, error]
    };
    let kinds = kinds.iter().map(|kind| row(&kind.kind, kind.dtype, &kind.stats));
    kinds.chain([row("all", "", all)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_names_without_places() {
        assert_eq!(kind_name("transformer.blocks.12.attn.Wqkv.weight"), "attn.Wqkv");
        assert_eq!(kind_name("transformer.wte.weight"), "wte");
        assert_eq!(kind_name("lm_head.weight"), "lm_head");
    }
}
