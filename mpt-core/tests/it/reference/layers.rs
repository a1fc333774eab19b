//! Linears, norms and the feed-forward layer by their definitions.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

use candle_core::{D, Result, Tensor};
use mpt_core::config::{Activation, FfnType, NormType};

use super::Reference;

impl Reference<'_> {
    /// `x W^T + b`, the bias where there is one.
    pub(super) fn linear(&self, place: &str, x: &Tensor) -> Result<Tensor> {
        let weight = self.parameter(&format!("{place}.weight"));
        let (b, s, d_in) = x.dims3()?;
        let y = x.reshape((b * s, d_in))?.matmul(&weight.t()?)?.reshape((b, s, weight.dims()[0]))?;
        match self.vars.get(&format!("{place}.bias")) {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// The norm of a model over the last dimension.
    pub(super) fn norm(&self, place: &str, x: &Tensor) -> Result<Tensor> {
        let centered = match self.config.norm_type {
            NormType::LayerNorm => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
            NormType::RmsNorm => x.clone(),
        };
        let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centered.broadcast_div(&(variance + self.config.norm_eps)?.sqrt()?)?;
        let scaled = normed.broadcast_mul(self.parameter(&format!("{place}.weight")))?;
        match self.vars.get(&format!("{place}.bias")) {
            Some(bias) => scaled.broadcast_add(bias),
            None => Ok(scaled),
        }
    }

    pub(super) fn ffn(&self, place: &str, x: &Tensor) -> Result<Tensor> {
        let up = self.linear(&format!("{place}.up_proj"), x)?;
        let inner = match self.config.ffn_type {
            FfnType::Mlp => activated(&up, self.config.activation)?,
            FfnType::Glu => {
                let gate = self.linear(&format!("{place}.gate_proj"), x)?;
                (activated(&gate, self.config.activation)? * up)?
            }
        };
        self.linear(&format!("{place}.down_proj"), &inner)
    }
}

fn activated(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Gelu => (x * 0.5)? * ((x * FRAC_1_SQRT_2)?.erf()? + 1.0)?,
        Activation::GeluTanh => {
            let cube = (x.sqr()? * x)?;
            let inner = ((x + (cube * 0.044_715)?)? * FRAC_2_PI.sqrt())?;
            (x * 0.5)? * (inner.tanh()? + 1.0)?
        }
        Activation::QuickGelu => x * sigmoid(&(x * 1.702)?)?,
        Activation::Relu => x.relu(),
        Activation::Silu => x * sigmoid(x)?,
    }
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

/// `cap * tanh(x / cap)`
pub(super) fn soft_cap(x: &Tensor, cap: f64) -> Result<Tensor> {
    (x / cap)?.tanh()? * cap
}
