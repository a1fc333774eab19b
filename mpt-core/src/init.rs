//! Drawing a parameter by the scheme of a configuration.
//!
//! A value depends on the seed, the parameter's name and its index alone.
//!
//! Source: llm-foundry `param_init_fns.py`; fans and gains as `torch.nn.init` computes them.

use std::path::Path;

use rayon::prelude::*;

use crate::config::{EmbeddingInit, InitScheme, MptConfig};
use crate::error::{Error, Result};
use crate::params::{Module, ParamId, ParamKind};
use crate::rng::CounterRng;

/// What the values of one parameter are drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Distribution {
    Constant(f32),
    /// Mean 0 and this deviation.
    Normal(f64),
    /// Between these limits.
    Uniform(f64, f64),
}

/// The initial values of a parameter of `shape`, a linear as `[out, in]`.
///
/// # Errors
/// [`Error::Config`] for a scheme that lacks a number.
pub(crate) fn initial_values(
    config: &MptConfig,
    seed: u64,
    id: ParamId,
    shape: &[usize],
) -> Result<Vec<f32>> {
    let (n, name) = (shape.iter().product(), id.to_string());
    type Draw = fn(&mut CounterRng) -> f64;
    let (offset, factor, draw): (f64, f64, Draw) = match distribution(config, id, shape)? {
        Distribution::Constant(value) => return Ok(vec![value; n]),
        Distribution::Normal(std) => (0.0, f64::from(std as f32), |rng| f64::from(rng.normal())),
        Distribution::Uniform(low, high) => (low, high - low, |rng| f64::from(rng.uniform())),
    };
    let values = (0..n).into_par_iter().with_min_len(1 << 12).map_init(
        || CounterRng::named(seed, &name),
        |rng, index| {
            rng.seek(2 * index as u64); // a normal number takes two draws
            (offset + draw(rng) * factor) as f32
        },
    );
    Ok(values.collect())
}

fn distribution(config: &MptConfig, id: ParamId, shape: &[usize]) -> Result<Distribution> {
    if shape.len() == 1 {
        return Ok(vector(config, id));
    }
    let module = id.module.module;
    let is_embedding = module.is_embedding();
    let scheme = config.init_config.scheme;
    if is_embedding && scheme != InitScheme::Torch {
        match config.init_config.embedding {
            Some(EmbeddingInit::Normal(std)) => return Ok(Distribution::Normal(std)),
            Some(EmbeddingInit::Uniform(low, high)) => return Ok(Distribution::Uniform(low, high)),
            None => {}
        }
    }
    let is_residual = matches!(module, Module::OutProj | Module::DownProj);
    let divisor = if is_residual { residual_divisor(config) } else { 1.0 };
    let (fan_in, fan_out) = (shape[1] as f64, fan_out(config, module, shape) as f64);
    let normal = |std: f64| Ok(Distribution::Normal(std / divisor));
    let uniform = |std: f64| {
        let limit = 3f64.sqrt() * std / divisor;
        Ok(Distribution::Uniform(-limit, limit))
    };
    match scheme {
        InitScheme::Torch if is_embedding => Ok(Distribution::Normal(1.0)),
        InitScheme::Torch => uniform((1.0 / (3.0 * fan_in)).sqrt()),
        InitScheme::Baseline { std: Some(std) } => normal(std),
        InitScheme::Baseline { std: None } => {
            Err(lacking("init_std", "null", "the deviation of `baseline_`"))
        }
        InitScheme::Small | InitScheme::Neox => normal((2.0 / (5.0 * config.d_model as f64)).sqrt()),
        InitScheme::Kaiming { uniform: is_uniform, fan_out: by_out, gain } => {
            let std = gain / if by_out { fan_out } else { fan_in }.sqrt();
            if is_uniform { uniform(std) } else { normal(std) }
        }
        InitScheme::Xavier { gain: 0.0, .. } => {
            Err(lacking("init_gain", "0", "a gain such as 1: with 0 every weight would be 0"))
        }
        InitScheme::Xavier { uniform: is_uniform, gain } => {
            let std = gain * (2.0 / (fan_in + fan_out)).sqrt();
            if is_uniform { uniform(std) } else { normal(std) }
        }
    }
}

/// Norms' weights are 1 and biases 0, except that torch draws the biases of linears.
fn vector(config: &MptConfig, id: ParamId) -> Distribution {
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

/// Rows that one draw covers: a fused projection is drawn head by head.
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

fn lacking(field: &'static str, actual: &str, expected: &str) -> Error {
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

    /// The distribution of a tensor of a model of width 32, 8 heads of 4 and 2 layers.
    fn drawn(init: &str, name: &str) -> Result<Distribution> {
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
        let found = drawn(init, name).unwrap();
        let same = match (found, expected) {
            (Distribution::Normal(a), Distribution::Normal(b)) => close(a, b),
            (Distribution::Uniform(a, b), Distribution::Uniform(c, d)) => close(a, c) && close(b, d),
            (a, b) => a == b,
        };
        assert!(same, "{init} {name}: {found:?}, expected {expected:?}");
    }

    #[test]
    fn deviations_are_those_of_the_schemes() {
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
    fn schemes_that_lack_a_number_are_refused_when_a_model_is_drawn() {
        for (init, named) in
            [(r#"{"name": "xavier_normal_"}"#, "init_gain"), (r#"{"name": "baseline_"}"#, "init_std")]
        {
            let message = drawn(init, WQKV).unwrap_err().to_string();
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
