//! Raw keys of `ffn_config`, their defaults and checks.

use serde::Deserialize;

use super::validator::Validator;
use crate::config::{Activation, FfnType};
use crate::error::Result;

/// Keys of `ffn_config` as written.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RawFfnConfig {
    /// Kind of the layer: `mptmlp`, or the gated `mptglu`. By default `mptmlp`.
    ffn_type: Option<String>,
    /// Width of the layer. By default `expansion_ratio * d_model`.
    ffn_hidden_size: Option<usize>,
    /// Activation. By default exact GELU.
    ffn_act_fn: Option<RawActivation>,
}

/// Keys of `ffn_act_fn` as written.
#[derive(Clone, Debug, Default, Deserialize)]
struct RawActivation {
    /// Name in torch: `gelu`, `quick_gelu`, `relu` or `silu`. By default `gelu`.
    name: Option<String>,
    /// Approximation of `gelu`: `none` or `tanh`. By default `none`.
    approximate: Option<String>,
}

impl RawFfnConfig {
    /// Width of the layer: `ffn_hidden_size`, else `expansion_ratio * d_model`.
    pub(super) fn hidden_size(
        &self,
        check: &Validator<'_>,
        d_model: usize,
        expansion_ratio: Option<f64>,
    ) -> Result<usize> {
        if let Some(size) = self.ffn_hidden_size {
            return check.size("ffn_hidden_size", size);
        }
        let ratio = expansion_ratio.unwrap_or(4.0);
        let hidden = ratio * d_model as f64;
        if !(1.0..=1e9).contains(&hidden) || hidden.fract() != 0.0 {
            return Err(check.invalid(
                "expansion_ratio",
                ratio,
                format!("a ratio with a whole product with d_model = {d_model}"),
            ));
        }
        Ok(hidden as usize)
    }

    /// Kind of the layer.
    pub(super) fn ffn_type(&self, check: &Validator<'_>) -> Result<FfnType> {
        match self.ffn_type.as_deref().unwrap_or("mptmlp") {
            "mptmlp" => Ok(FfnType::Mlp),
            "mptglu" => Ok(FfnType::Glu),
            "mptgeglu" => Err(check.unsupported("ffn_type", "mptgeglu", "write `mptglu`, its present name")),
            other => Err(check.unsupported(
                "ffn_type",
                other,
                "`mptmlp` and `mptglu` are built; mixtures of experts and fused TransformerEngine layers are not",
            )),
        }
    }

    /// Activation of the layer.
    pub(super) fn activation(&self, check: &Validator<'_>) -> Result<Activation> {
        let Some(activation) = &self.ffn_act_fn else { return Ok(Activation::Gelu) };
        let name = activation.name.as_deref().unwrap_or("gelu");
        match (name, activation.approximate.as_deref().unwrap_or("none")) {
            ("gelu", "none") => Ok(Activation::Gelu),
            ("gelu", "tanh") => Ok(Activation::GeluTanh),
            ("quick_gelu", _) => Ok(Activation::QuickGelu),
            ("relu", _) => Ok(Activation::Relu),
            ("silu", _) => Ok(Activation::Silu),
            _ => Err(check.unsupported(
                "ffn_act_fn",
                name,
                "`gelu`, `quick_gelu`, `relu` and `silu` are built",
            )),
        }
    }
}
