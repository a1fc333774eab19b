//! Raw keys of `init_config`, their defaults and checks.

use serde::Deserialize;
use serde_json::Value;

use super::validator::Validator;
use crate::config::{EmbeddingInit, InitConfig, InitScheme};
use crate::error::Result;

/// Keys of `init_config` as written.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RawInitConfig {
    /// Scheme of llm-foundry: `default_`, `baseline_`, `kaiming_normal_`, `kaiming_uniform_`, `small_init_`, `neox_init_`,
    /// `xavier_normal_` or `xavier_uniform_`. By default `kaiming_normal_`.
    name: Option<String>,
    /// Standard deviation of normal embeddings. By default the scheme's distribution.
    emb_init_std: Option<f64>,
    /// Limit of uniform embeddings, or a lower and an upper one; `emb_init_std` takes precedence.
    emb_init_uniform_lim: Option<Value>,
    /// Divisor of the residual projections: a number, false for none, or true for `sqrt(2 * n_layers)`. By default true.
    init_div_is_residual: Option<Value>,
    /// Standard deviation of `baseline_`; required there.
    init_std: Option<f64>,
    /// Gain of `xavier_*`, and negative slope of `leaky_relu`. By default 0.
    init_gain: Option<f64>,
    /// Mode of `kaiming_*`: `fan_in` or `fan_out`. By default `fan_in`.
    fan_mode: Option<String>,
    /// Nonlinearity that sets the gain of `kaiming_*`: `linear`, `sigmoid`, `tanh`, `relu`, `leaky_relu` or `selu`. By default
    /// `relu`.
    init_nonlinearity: Option<String>,
}

impl RawInitConfig {
    /// Checked options, with defaults filled in.
    pub(super) fn check(self, check: &Validator<'_>) -> Result<InitConfig> {
        let residual_divisor = match &self.init_div_is_residual {
            None | Some(Value::Null | Value::Bool(true)) => None,
            Some(Value::Bool(false)) => Some(1.0),
            Some(value) => {
                let number = value.as_f64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
                Some(check.positive("init_div_is_residual", number.unwrap_or(f64::NAN))?)
            }
        };
        Ok(InitConfig { scheme: self.scheme(check)?, embedding: self.embedding(check)?, residual_divisor })
    }

    fn scheme(&self, check: &Validator<'_>) -> Result<InitScheme> {
        let gain = check.finite("init_gain", self.init_gain.unwrap_or(0.0))?;
        let kaiming = |uniform| {
            let fan_out = match self.fan_mode.as_deref().unwrap_or("fan_in") {
                "fan_in" => false,
                "fan_out" => true,
                other => return Err(check.invalid("fan_mode", other, "\"fan_in\" or \"fan_out\"")),
            };
            let nonlinearity = self.init_nonlinearity.as_deref().unwrap_or("relu");
            Ok(InitScheme::Kaiming { uniform, fan_out, gain: nonlinearity_gain(check, nonlinearity, gain)? })
        };
        match self.name.as_deref().unwrap_or("kaiming_normal_") {
            "default_" => Ok(InitScheme::Torch),
            "baseline_" => {
                Ok(InitScheme::Baseline { std: check.optional_positive("init_std", self.init_std)? })
            }
            "kaiming_normal_" => kaiming(false),
            "kaiming_uniform_" => kaiming(true),
            "small_init_" => Ok(InitScheme::Small),
            "neox_init_" => Ok(InitScheme::Neox),
            "xavier_normal_" => Ok(InitScheme::Xavier { uniform: false, gain }),
            "xavier_uniform_" => Ok(InitScheme::Xavier { uniform: true, gain }),
            other => Err(check.unsupported(
                "init_config.name",
                other,
                "default_, baseline_, kaiming_normal_, kaiming_uniform_, neox_init_, small_init_, xavier_normal_ and \
                 xavier_uniform_ are built",
            )),
        }
    }

    fn embedding(&self, check: &Validator<'_>) -> Result<Option<EmbeddingInit>> {
        if let Some(std) = self.emb_init_std {
            let std = if std == 0.0 { 0.0 } else { check.positive("emb_init_std", std)? };
            return Ok(Some(EmbeddingInit::Normal(std)));
        }
        let limits: Vec<f64> = match &self.emb_init_uniform_lim {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(limits)) => limits.iter().filter_map(Value::as_f64).collect(),
            Some(limit) => limit.as_f64().map(|limit| vec![-limit, limit]).unwrap_or_default(),
        };
        match limits[..] {
            [low, high] if low <= high && (high - low).is_finite() => {
                Ok(Some(EmbeddingInit::Uniform(low, high)))
            }
            _ => Err(check.invalid(
                "emb_init_uniform_lim",
                self.emb_init_uniform_lim.as_ref().map(Value::to_string).unwrap_or_default(),
                "a number, or a lower and an upper limit",
            )),
        }
    }
}

/// Gain of a nonlinearity. `slope`, llm-foundry's `init_gain`, is the negative slope of `leaky_relu`.
///
/// Source: `torch.nn.init.calculate_gain`.
fn nonlinearity_gain(check: &Validator<'_>, nonlinearity: &str, slope: f64) -> Result<f64> {
    match nonlinearity {
        "linear" | "sigmoid" => Ok(1.0),
        "tanh" => Ok(5.0 / 3.0),
        "relu" => Ok(std::f64::consts::SQRT_2),
        "leaky_relu" => Ok((2.0 / (1.0 + slope * slope)).sqrt()),
        "selu" => Ok(0.75),
        other => {
            Err(check.invalid("init_nonlinearity", other, "linear, sigmoid, tanh, relu, leaky_relu or selu"))
        }
    }
}
