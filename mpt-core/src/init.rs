//! Random initialization of one parameter under a configuration's scheme.
//!
//! A value is a function of the seed, the parameter's name and its index.
//!
//! Source: llm-foundry `param_init_fns.py`; fans and gains as `torch.nn.init` computes them.

use std::path::Path;

use rayon::prelude::*;

use crate::config::{EmbeddingInit, InitScheme, MptConfig};
use crate::error::{Error, Result};
use crate::params::{Module, ParamId, ParamKind};
use crate::rng::CounterRng;

/// Distribution of the values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Distribution {
    Constant(f32),
    /// Mean 0 and this standard deviation.
    Normal(f64),
    /// Lower and upper limit.
    Uniform(f64, f64),
}

/// Initial values of a parameter of `shape`; a linear is `[out, in]`.
///
/// # Errors
/// [`Error::Config`] when the scheme lacks a value.
pub(crate) fn initial_values(
    config: &MptConfig,
    seed: u64,
    id: ParamId,
    shape: &[usize],
) -> Result<Vec<f32>> {
    let (n, name) = (shape.iter().product(), id.to_string());
    type Sample = fn(&mut CounterRng) -> f64;
    let (offset, factor, sample): (f64, f64, Sample) = match distribution(config, id, shape)? {
        Distribution::Constant(value) => return Ok(vec![value; n]),
        Distribution::Normal(std) => (0.0, f64::from(std as f32), |rng| f64::from(rng.normal())),
        Distribution::Uniform(low, high) => (low, high - low, |rng| f64::from(rng.uniform())),
    };
    let values = (0..n).into_par_iter().with_min_len(1 << 12).map_init(
        || CounterRng::named(seed, &name),
        |rng, index| {
            rng.seek(2 * index as u64); // a normal value takes two draws
            (offset + sample(rng) * factor) as f32
        },
    );
    Ok(values.collect())
}

/// Distribution of a parameter.
fn distribution(config: &MptConfig, id: ParamId, shape: &[usize]) -> Result<Distribution> {
    let scheme = config.init_config.scheme;
    if shape.len() == 1 {
        return Ok(vector_distribution(config, id));
    }
    if id.module.module.is_embedding() && scheme != InitScheme::Torch {
        match config.init_config.embedding {
            Some(EmbeddingInit::Normal(std)) => return Ok(Distribution::Normal(std)),
            Some(EmbeddingInit::Uniform(low, high)) => return Ok(Distribution::Uniform(low, high)),
            None => {}
        }
    }
    matrix_distribution(config, id.module.module, shape)
}

/// Distribution of a matrix `[rows, fan_in]` under the scheme.
fn matrix_distribution(config: &MptConfig, module: Module, shape: &[usize]) -> Result<Distribution> {
    let is_residual = matches!(module, Module::OutProj | Module::DownProj);
    let divisor = if is_residual { residual_divisor(config) } else { 1.0 };
    let (fan_in, fan_out) = (shape[1] as f64, fan_out(config, module, shape) as f64);
    let centered = |std: f64, is_uniform: bool| {
        let limit = 3f64.sqrt() * std / divisor;
        if is_uniform { Distribution::Uniform(-limit, limit) } else { Distribution::Normal(std / divisor) }
    };
    Ok(match config.init_config.scheme {
        InitScheme::Torch if module.is_embedding() => Distribution::Normal(1.0),
        InitScheme::Torch => centered((1.0 / (3.0 * fan_in)).sqrt(), true),
        InitScheme::Baseline { std: Some(std) } => centered(std, false),
        InitScheme::Baseline { std: None } => {
            return Err(missing_value("init_std", "null", "the deviation of `baseline_`"));
        }
        InitScheme::Small | InitScheme::Neox => centered((2.0 / (5.0 * config.d_model as f64)).sqrt(), false),
        InitScheme::Kaiming { uniform, fan_out: use_fan_out, gain } => {
            centered(gain / if use_fan_out { fan_out } else { fan_in }.sqrt(), uniform)
        }
        InitScheme::Xavier { gain: 0.0, .. } => {
            let expected = "a gain such as 1: with 0 every weight would be 0";
            return Err(missing_value("init_gain", "0", expected));
        }
        InitScheme::Xavier { uniform, gain } => centered(gain * (2.0 / (fan_in + fan_out)).sqrt(), uniform),
    })
}

/// Distribution of a vector: 1 for norm weights, 0 for biases. Under torch's scheme biases of linears are uniform.
fn vector_distribution(config: &MptConfig, id: ParamId) -> Distribution {
    if id.kind != ParamKind::Bias {
        return Distribution::Constant(1.0);
    }
    if config.init_config.scheme != InitScheme::Torch || id.module.module.is_norm() {
        return Distribution::Constant(0.0);
    }
    let fan_in = match id.module.module {
        Module::OutProj => config.q_width(),
        Module::DownProj => config.ffn_hidden_size,
        _ => config.d_model,
    };
    let limit = 1.0 / (fan_in as f64).sqrt();
    Distribution::Uniform(-limit, limit)
}

/// `fan_out` of a matrix; a projection to heads is initialized head by head.
fn fan_out(config: &MptConfig, module: Module, shape: &[usize]) -> usize {
    match module {
        Module::Wqkv | Module::Wq | Module::Wk | Module::Wv => config.head_dim,
        _ => shape[0],
    }
}

fn residual_divisor(config: &MptConfig) -> f64 {
    let layers = config.n_layers as f64;
    match config.init_config.scheme {
        InitScheme::Torch => 1.0,
        InitScheme::Neox => layers / 10f64.sqrt(),
        _ => config.init_config.residual_divisor.unwrap_or((2.0 * layers).sqrt()),
    }
}

fn missing_value(field: &'static str, actual: &str, expected: &str) -> Error {
    Error::Config {
        path: Path::new("init_config").to_owned(),
        field,
        actual: actual.to_owned(),
        expected: expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distribution of a tensor in a model of width 32 with 8 heads of 4 and 2 layers.
    fn distribution_of(init: &str, name: &str) -> Result<Distribution> {
        let json = format!(
            r#"{{"d_model": 32, "n_heads": 8, "n_layers": 2, "vocab_size": 50, "no_bias": false, "init_config": {init}}}"#
        );
        let config = MptConfig::from_json(&json, Path::new("config.json")).unwrap();
        let shape = config.parameter_shapes()[name].clone();
        distribution(&config, name.parse().unwrap(), &shape)
    }

    const WQKV: &str = "transformer.blocks.0.attn.Wqkv.weight";
    const DOWN: &str = "transformer.blocks.1.ffn.down_proj.weight";
    const WTE: &str = "transformer.wte.weight";

    fn expect(init: &str, name: &str, expected: Distribution) {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        let found = distribution_of(init, name).unwrap();
        let same = match (found, expected) {
            (Distribution::Normal(a), Distribution::Normal(b)) => close(a, b),
            (Distribution::Uniform(a, b), Distribution::Uniform(c, d)) => close(a, c) && close(b, d),
            (a, b) => a == b,
        };
        assert!(same, "{init} {name}: {found:?}, expected {expected:?}");
    }

    #[test]
    fn standard_deviations_follow_the_schemes() {
        use Distribution::{Constant, Normal, Uniform};
        let kaiming = (2f64 / 32.0).sqrt();
        expect(r#"{"name": "kaiming_normal_"}"#, WQKV, Normal(kaiming));
        expect(r#"{"name": "kaiming_normal_"}"#, DOWN, Normal((2f64 / 128.0).sqrt() / 2.0));
        expect(
            r#"{"name": "kaiming_normal_", "init_div_is_residual": false}"#,
            DOWN,
            Normal((2f64 / 128.0).sqrt()),
        );
        expect(r#"{"name": "kaiming_normal_", "fan_mode": "fan_out"}"#, WQKV, Normal((2f64 / 4.0).sqrt()));
        let limit = 3f64.sqrt() * kaiming;
        expect(r#"{"name": "kaiming_uniform_"}"#, WTE, Uniform(-limit, limit));
        expect(r#"{"name": "small_init_"}"#, WQKV, Normal((2f64 / 160.0).sqrt()));
        expect(r#"{"name": "neox_init_"}"#, DOWN, Normal((2f64 / 160.0).sqrt() * 10f64.sqrt() / 2.0));
        expect(r#"{"name": "baseline_", "init_std": 0.02}"#, DOWN, Normal(0.01));
        expect(r#"{"name": "xavier_normal_", "init_gain": 1}"#, WQKV, Normal((2f64 / 36.0).sqrt()));
        expect(r#"{"name": "default_"}"#, WQKV, Uniform(-(1f64 / 32.0).sqrt(), (1f64 / 32.0).sqrt()));
        expect(r#"{"name": "default_"}"#, WTE, Normal(1.0));
        let bias = "transformer.blocks.1.ffn.down_proj.bias";
        expect(r#"{"name": "default_"}"#, bias, Uniform(-(1f64 / 128.0).sqrt(), (1f64 / 128.0).sqrt()));
        expect(r#"{"name": "small_init_"}"#, bias, Constant(0.0));
        expect(r#"{"name": "default_"}"#, "transformer.norm_f.weight", Constant(1.0));
        expect(r#"{"name": "small_init_", "emb_init_std": 0.5}"#, WTE, Normal(0.5));
        expect(r#"{"name": "small_init_", "emb_init_uniform_lim": [-1, 2]}"#, WTE, Uniform(-1.0, 2.0));
    }

    #[test]
    fn schemes_that_lack_a_value_are_refused() {
        for (init, named) in
            [(r#"{"name": "xavier_normal_"}"#, "init_gain"), (r#"{"name": "baseline_"}"#, "init_std")]
        {
            let message = distribution_of(init, WQKV).unwrap_err().to_string();
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn uniform_values_fill_their_range() {
        let json = r#"{"d_model": 32, "n_heads": 8, "n_layers": 1, "vocab_size": 50, "init_config": {"name": "kaiming_uniform_"}}"#;
        let config = MptConfig::from_json(json, Path::new("config.json")).unwrap();
        let values = initial_values(&config, 1, WTE.parse().unwrap(), &[50, 32]).unwrap();
        let limit = (3f32 * 2.0 / 32.0).sqrt();
        assert!(values.iter().all(|v| v.abs() <= limit));
        let variance = values.iter().map(|v| v * v).sum::<f32>() / 1600.0;
        assert!((variance / (2.0 / 32.0) - 1.0).abs() < 0.1, "{variance}");
    }
}
